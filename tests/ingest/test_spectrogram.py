import io

import numpy as np
import pytest
from PIL import Image

from ingest.spectrogram import encode, log_mel, mel_bank, quantise

CASES = [("speech", 1), ("speech", 2), ("speech", 3), ("synthetic", 1), ("silence", 1)]


def waveform(arrays, name, speed):
    length = 110_250 * speed
    if name == "silence":
        return np.zeros(length, np.float32)
    samples = arrays[f"{name}_int16"].astype(np.float32)
    return (samples / max(np.abs(samples).max(), 1))[:length]


@pytest.mark.parametrize(("name", "speed"), CASES)
def test_equal_to_librosa_081(golden, parity, name, speed):
    arrays, reference = np.load(golden / "f_spectrograms.npz"), np.load(golden / "f_librosa081_log_mel.npz")
    ours = log_mel(waveform(arrays, name, speed), speed)
    expected = reference[f"{name}_x{speed}/log_mel"]
    assert ours.shape == (64, 188)
    assert ours.dtype == np.float32
    error = np.abs(ours - expected).max()
    parity.record("f_librosa081_log_mel.npz", "log-mel", error)
    assert error < 1e-4

    jpeg, magic = encode(ours)
    differing = np.mean(quantise(ours, magic) != arrays[f"{name}_x{speed}/quantised"])
    parity.record("f_spectrograms.npz", "quantised pixels that differ", differing)
    assert differing <= 0.001
    decoded = np.asarray(Image.open(io.BytesIO(jpeg))).astype(int)
    assert np.abs(decoded - arrays[f"{name}_x{speed}/decoded_jpg"].astype(int)).mean() < 0.1


@pytest.mark.parametrize("speed", [1, 2, 3])
def test_mel_banks(golden, parity, speed):
    error = np.abs(mel_bank(1536 * speed) - np.load(golden / "f_spectrograms.npz")[f"mel_filterbank_x{speed}"]).max()
    parity.record("f_spectrograms.npz", "mel bank", error)
    assert error < 1e-7


@pytest.mark.parametrize(
    ("speed", "total", "peak", "magic", "corner", "column"),
    [
        (1, 3886.150, 8.995448, 28.347674, 3.883575, (0.162802, 0.004088, 0.000495)),
        (2, 4079.309, 10.385984, 24.552319, 4.550446, (0.017565, 0.000434, 0.000053)),
        (3, 4205.116, 11.197128, 22.773700, 4.952958, (0.000157, 0.000004, 0.0000005)),
    ],
)
def test_reference_tone(speed, total, peak, magic, corner, column):
    n = np.arange(110_250 * speed)
    values = log_mel((0.5 * np.sin(2 * np.pi * 440 * n / 22050)).astype(np.float32), speed)
    assert values.sum() == pytest.approx(total, abs=0.05)
    assert values.max() == pytest.approx(peak, abs=1e-5)
    assert values.argmax(axis=0)[94] == 7
    assert encode(values)[1] == pytest.approx(magic, abs=1e-4)
    assert values[0, 0] == pytest.approx(corner, abs=1e-4)
    assert values[9:12, 94] == pytest.approx(column, abs=1e-5)


def test_reference_chirp_and_bank():
    t = np.arange(110_250) / 22050
    values = log_mel((0.8 * np.sin(2 * np.pi * (50 * t + 0.5 * (9950 / 5) * t**2))).astype(np.float32))
    assert values.sum() == pytest.approx(3630.506, abs=0.05)
    assert np.percentile(values, 99) == pytest.approx(8.383979, abs=1e-4)
    assert values.max() == pytest.approx(9.840760, abs=1e-4)
    assert values.argmax(axis=0)[[0, 47, 94, 141, 187]].tolist() == [0, 36, 49, 57, 62]
    bank = mel_bank(1536)
    assert bank.sum() == pytest.approx(4.458726, abs=1e-5)
    assert bank.max() == pytest.approx(0.019565, abs=1e-6)
    assert np.flatnonzero(bank[0])[[0, -1]].tolist() == [2, 8]
    assert np.flatnonzero(bank[63])[[0, -1]].tolist() == [692, 767]


def test_a_wrong_length_is_named():
    with pytest.raises(ValueError, match="1000 samples at speed 1 give 2 columns instead of 188"):
        log_mel(np.zeros(1000, np.float32))
