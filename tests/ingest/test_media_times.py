"""Frames and sound are where their time stamps are, in every container, on media that carry their right answers."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import media
from ingest.media.sound import TOLERANCE_SECONDS, Sound
from tests import numbered_media
from tests.numbered_media import FILMS, RATE, click_times, decoded_truth, ffmpeg, number, sought_truth

CLICK_ERROR = 0.03


@pytest.fixture(scope="session")
def sources(once):
    return once("numbered-media", numbered_media.write_sources)


@pytest.fixture(scope="session")
def built(sources, tmp_path_factory):
    """Build a film once."""
    folder, paths = tmp_path_factory.mktemp("films"), {}

    def build(film):
        if film.name not in paths:
            paths[film.name] = folder / film.name
            film.build(sources, paths[film.name])
        return paths[film.name]

    return build


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_each_frame_is_the_first_not_before_its_time(built, film):
    path = built(film)
    times = [time for time in film.times if time < film.end + film.late - 0.2]
    truth = decoded_truth(path, times)
    assert [number(frame) for frame in media.frames(str(path), times)] == truth
    # Asked alone, a frame is sought from the beginning.
    for time, right in itertools.islice(zip(times, truth, strict=True), 1, None, 2):
        assert number(next(media.frames(str(path), [time]))) == right, time
    for time, right in zip(times, truth, strict=True):
        assert abs(right - film.first - max(time - film.late, 0) * RATE) <= 1, time
    if film.sought:
        assert sought_truth(path, times[4 % len(times)]) == truth[4 % len(times)]


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_clicks_are_heard_when_they_are(built, film):
    with media.sound(str(built(film))) as track:
        clicks = click_times(track.read(0, track.length))
    assert clicks == pytest.approx(film.clicks, abs=CLICK_ERROR)


@pytest.mark.parametrize("film", FILMS, ids=lambda film: film.name)
def test_the_duration_is_that_of_the_packets(built, film):
    probe = media.probe(str(built(film)))
    assert probe.duration == pytest.approx(max(film.end + film.late, film.clicks[-1] + 3), abs=0.85)
    assert probe.has_picture
    assert probe.has_sound


def test_a_gap_is_silence_and_all_else_is_heard(built):
    whole, gap = (built(next(f for f in FILMS if f.name == name)) for name in ("h264-aac.mp4", "sound-gap.mp4"))
    with media.sound(str(whole)) as one, media.sound(str(gap)) as other:
        assert one.length == other.length
        lost = other.read(int(5.6 * 22_050), int(1.8 * 22_050))
        assert not lost.any()


def test_jitter_of_time_stamps_changes_no_sample(built, tmp_path):
    exact, jittered = built(next(f for f in FILMS if f.name == "mpeg4-ac3.mkv")), tmp_path / "jittered.mkv"
    stamps = "setts=pts=PTS+9*mod(N\\,2):dts=DTS+9*mod(N\\,2)"
    ffmpeg("-i", exact, "-c", "copy", "-bsf:a", stamps, jittered)
    np.testing.assert_array_equal(media.read(str(exact), [])[1], media.read(str(jittered), [])[1])


class Memory:
    """What a temporary file does, with the bytes written counted."""

    def __init__(self, file):
        self.file, self.written = file, 0
        self.seek, self.read, self.truncate = file.seek, file.read, file.truncate

    def write(self, data):
        self.written += len(data)
        return self.file.write(data)


PIECES = st.lists(st.tuples(st.integers(-50, 300), st.integers(0, 60), st.booleans()), max_size=12)


@given(pieces=PIECES, limit=st.integers(0, 400))
def test_samples_stay_where_they_were_written_first(tmp_path_factory, pieces, limit):
    """Against an array: silence in gaps, no sample over an earlier one, none past the limit, no byte for silence."""
    path = tmp_path_factory.mktemp("spool") / "spool"
    expected, length, loud = np.zeros(1000, np.int16), 0, 0
    with path.open("w+b") as file:
        spool = Memory(file)
        track = Sound(spool, limit)
        for i, (first, count, silent) in enumerate(pieces):
            samples = np.zeros(count, np.int16) if silent else np.full(count, i + 1, np.int16)
            track.write(samples.tobytes(), first)
            kept = [at for at in range(first, first + count) if length <= at < limit]
            for at in kept:
                expected[at] = samples[at - first]
            length = max([length, *(at + 1 for at in kept)])
            loud += 0 if silent else len(kept)
        track.finish()
        assert track.length == length
        np.testing.assert_array_equal(track.read(0, 1000), expected[:length])
        assert spool.written == 2 * loud


def test_the_tolerance_leaves_room_for_the_promise():
    assert TOLERANCE_SECONDS < CLICK_ERROR
