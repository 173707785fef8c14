import itertools

import numpy as np
import pytest

from pipelines.demo.scenes import SOUNDS
from pipelines.demo.sounds import LOUDNESS, synthesise

RATE = 22050


def features(wave):
    """Log energy in 12 bands of equal width on the mel scale, and how much the loudness changes within a second."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 11025 / 700), 13) / 2595) - 1)
    bands = [power[(hertz >= a) & (hertz < b)].sum() for a, b in itertools.pairwise(edges)]
    loudness = np.sqrt(np.mean(wave[: len(wave) // 441 * 441].reshape(-1, 441) ** 2, axis=1))
    return np.append(np.log10(np.array(bands) / sum(bands) + 1e-4), 3 * loudness.std() / loudness.mean())


def test_a_nearest_neighbour_on_the_spectrum_names_every_sound():
    known = {sound: features(synthesise(sound, 5, RATE, seed=0)) for sound in SOUNDS}
    for sound in SOUNDS:
        for seed in range(1, 9):
            heard = features(synthesise(sound, 5, RATE, seed))
            assert min(known, key=lambda k: np.abs(known[k] - heard).sum()) == sound


@pytest.mark.parametrize("sound", SOUNDS)
def test_sounds_are_equally_loud_and_start_and_end_softly(sound):
    wave = synthesise(sound, 5, RATE, seed=3)
    assert wave.dtype == np.float32
    assert wave.shape == (5 * RATE,)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(LOUDNESS, rel=0.2)
    assert abs(wave[0]) < 1e-3
    assert abs(wave[-1]) < 1e-3


def test_the_seed_varies_a_sound_and_repeats_it():
    np.testing.assert_array_equal(synthesise("beeping", 2, RATE, 5), synthesise("beeping", 2, RATE, 5))
    assert not np.array_equal(synthesise("beeping", 2, RATE, 5), synthesise("beeping", 2, RATE, 6))


def test_an_unknown_sound_is_named():
    with pytest.raises(ValueError, match="'barking' is not a sound; choose one of humming"):
        synthesise("barking", 1, RATE, 0)
