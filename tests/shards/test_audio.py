import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shards.arrays import audio
from shards.records import tfrecord
from shards.records.pretraining import parse_example
from shards.storage.errors import RecordError


@given(arrays(np.float64, (5, 4), elements=st.floats(1e-6, 1 - 1e-6)))
def test_clips_never_overlap_nor_leave_the_segment(draws):
    starts = audio.clip_starts(draws, 60)
    assert (starts[:, 0] >= 0).all()
    assert (np.diff(starts) >= 60).all()
    assert (starts[:, -1] + 60 <= 188).all()


def test_times_are_those_of_the_specification():
    times = audio.clip_times(np.array([0, 64, 128]), 60)
    np.testing.assert_allclose(times.starts, [-0.03483, 1.67184, 3.37850], atol=1e-5)
    np.testing.assert_allclose(times.ends, [1.63483, 3.34150, 5.04816], atol=1e-5)
    np.testing.assert_allclose(times.centres, [0.8, 2.50667, 4.21333], atol=1e-5)


def test_clips_are_exact_windows_of_the_golden_spectrograms(golden, parity):
    reference = np.load(golden / "j_batch2.npz")["audio_clips[0]"].astype(np.float32).reshape(16, 3, 60, 65)
    with (golden / "train00000of00001.tfrecord").open("rb") as file:
        example = parse_example(next(tfrecord.scan(file, "golden"))[1])
    for placed, clips in zip(example.segments, reference, strict=True):
        pixels = audio.decode(placed.segment.spectrogram)
        ours = np.empty((3, 60, 65), np.float32)
        errors = np.full((3, 129), np.inf)
        for start in range(129):
            audio.write_clips(pixels, placed.segment.magic, placed.segment.speed, np.full(3, start), 60, ours)
            errors[:, start] = np.abs(ours - clips).max(axis=(1, 2))
        # The reference is stored as float16.
        assert errors.min(axis=1).max() < 3e-3
        found = errors.argmin(axis=1)
        assert (np.diff(found) >= 60).all()
        parity.record("j_batch2.npz", "audio clips", errors.min(axis=1).max())


def test_what_is_no_spectrogram_is_refused():
    with pytest.raises(RecordError, match="not a JPEG"):
        audio.decode(b"not a picture")
    with pytest.raises(RecordError, match="shape"):
        audio.decode(simplejpeg.encode_jpeg(np.zeros((64, 100, 1), np.uint8), colorspace="GRAY"))
