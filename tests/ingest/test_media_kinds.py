"""Slides, missing and wrong durations, orientations, pixels that are not square, several tracks, bounds."""

import itertools
import struct

import numpy as np
import pytest

from ingest import media
from ingest.language_codes import stated_language
from ingest.media.sound import STATED_MARGIN_SECONDS
from shards.outcomes import Outcome
from tests.numbered_media import AAC, H264, ffmpeg, number, picture

SILENCE = ("-f", "lavfi", "-i")


def slides(path, times, *arguments, last=None, sound=20):
    """A film of one numbered picture at each time, in tenths of a second, with silent sound.

    `last` is the stated length of the last picture, for streams without B pictures.
    """
    raw = b"".join(picture(round(10 * time)).tobytes() for time in times)
    stamps = "+".join(f"eq(N\\,{i})*{time}" for i, time in enumerate(times))
    source = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", "160x96", "-r", 10, "-i", "-")
    silent = (*SILENCE, f"anullsrc=r=22050:cl=mono:d={sound}") if sound else ()
    shown = f"setpts=({stamps})/TB"
    length = ("-bsf:v", f"setts=duration=if(eq(N\\,{len(times) - 1})\\,{last}/TB\\,DURATION)") if last else ()
    ffmpeg(*source, *silent, "-vf", shown, "-fps_mode", "vfr", *arguments, *length, path, data=raw)
    return str(path)


def numbers(path, times):
    return [number(frame) for frame in media.frames(path, times)]


STILL = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("key_frames", [1, 250])
def test_a_slide_is_shown_until_the_next_and_the_last_to_the_end(tmp_path, suffix, key_frames):
    path = slides(tmp_path / f"slides.{suffix}", [0, 5, 6.5, 14], *STILL, "-g", key_frames, "-bf", 0)
    times = [0, 2.5, 5, 6.4, 6.6, 12.5, 14, 17.5, 19.5]
    right = [0, 0, 50, 50, 65, 65, 140, 140, 140]
    assert numbers(path, times) == right
    assert [numbers(path, [time])[0] for time in times] == right
    assert numbers(path, [25]) == [None]
    assert media.probe(path).picture_end is None


ALWAYS_B = "bframes=2:b-adapt=0:scenecut=0:b-pyramid=none:keyint=250"


def test_slides_with_pictures_that_refer_to_nothing_later(tmp_path):
    """B pictures, which are skipped on the way on ordinary video."""
    arguments = ("-c:v", "libx264", "-x264-params", ALWAYS_B, "-pix_fmt", "yuv420p", "-c:a", "aac")
    path = slides(tmp_path / "slides.mkv", [0, 3, 6, 9, 12, 15], *arguments)
    assert numbers(path, [1, 4, 5.9, 8, 10, 14, 16]) == [0, 30, 30, 60, 90, 120, 150]


def test_pictures_without_time_stamps_do_not_end_the_others(tmp_path):
    """The key frame has no time stamp and the index no entry, so that nothing can be sought."""
    arguments = ("-c:v", "libx264", "-x264-params", ALWAYS_B, "-pix_fmt", "yuv420p", "-c:a", "aac")
    path = slides(tmp_path / "slides.mkv", [0, 3, 6, 9, 12, 15], *arguments, last=1)
    assert None not in numbers(path, [4, 8])


@pytest.mark.parametrize("rate", [2, 1])
def test_slow_ordinary_video_keeps_the_first_frame_not_before(tmp_path, rate):
    path = slides(tmp_path / "slow.mkv", [i / rate for i in range(12)], *STILL, sound=0)
    times = [0.1, 1.4, 3.3, 3.6]
    assert numbers(path, times) == [round(10 * np.ceil(time * rate) / rate) for time in times]


def test_a_single_picture_is_shown_as_long_as_the_sound(tmp_path):
    path = slides(tmp_path / "one.mp4", [0], *STILL)
    assert numbers(path, [0, 2.5, 19.5, 21]) == [0, 0, 0, None]


def test_a_last_picture_that_states_its_length_is_shown_so_long(tmp_path):
    path = slides(tmp_path / "long.mkv", [i / 10 for i in range(20)], *STILL, "-bf", 0, last=4, sound=0)
    assert numbers(path, [1.85, 3.5, 5.8, 6.5]) == [19, 19, 19, None]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "flv", "avi"])
def test_the_picture_of_a_cut_stream_ends(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    codec = ("-c:v", "mpeg4", "-c:a", "libmp3lame") if suffix == "avi" else (*H264, *AAC)
    ffmpeg(*SILENCE, "testsrc2=s=160x96:r=25:d=6", *SILENCE, "sine=d=12:r=44100", *codec, path)
    probe = media.probe(str(path))
    assert probe.duration == pytest.approx(12, abs=0.2)
    assert probe.picture_end == pytest.approx(6, abs=0.2)
    assert [frame is None for frame in media.frames(str(path), [5.5, 7.0])] == [False, True]


def with_duration(path, seconds):
    """State another duration in a Matroska file of milliseconds."""
    data = bytearray(path.read_bytes())
    where = data.index(b"\x44\x89\x88") + 3
    data[where : where + 8] = struct.pack(">d", 1000 * seconds)
    wrong = path.with_name(f"stated-{seconds}.mkv")
    wrong.write_bytes(bytes(data))
    return str(wrong)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Half a minute of moving picture and tone."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    ffmpeg(*SILENCE, "testsrc2=s=160x96:r=10:d=30", *SILENCE, "sine=d=30:r=44100", *H264, *AAC, path)
    return path


def test_a_stated_duration_that_is_too_long_is_corrected(film):
    assert media.probe(with_duration(film, 36_000)).duration == pytest.approx(30, abs=0.1)


def test_sound_behind_the_stated_duration_is_not_stored(film):
    with media.sound(with_duration(film, 5)) as track:
        assert track.length == (5 + STATED_MARGIN_SECONDS) * 22_050


def test_sound_is_bounded_by_what_is_requested(film):
    with media.sound(str(film), seconds=7.5) as track:
        assert track.length == int(7.5 * 22_050)
        whole = media.read(str(film), [])[1]
        np.testing.assert_array_equal(track.read(0, track.length), whole[: track.length])


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [(), ("-display_hflip",), ("-display_vflip",)])
def test_pictures_are_laid_as_ffmpeg_lays_them(tmp_path, turn, mirror):
    plain, laid = tmp_path / "plain.mp4", tmp_path / "laid.mp4"
    ffmpeg(*SILENCE, "testsrc2=s=160x96:r=5:d=1", *H264, plain)
    ffmpeg("-display_rotation", turn, *mirror, "-i", plain, "-c", "copy", laid)
    right = np.frombuffer(ffmpeg("-i", laid, "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    (frame,), _ = media.read(str(laid), [0.0])
    assert frame.shape == ((160, 96, 3) if turn in (90, 270) else (96, 160, 3))
    assert np.abs(frame.astype(int) - right.reshape(frame.shape)).mean() < 3


@pytest.mark.parametrize(("aspect", "width"), [("64/45", 227), ("8/9", 142), ("1", 160), ("0", 160), ("1/50", 160)])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_pixels_come_out_square(tmp_path, suffix, aspect, width):
    path = tmp_path / f"wide.{suffix}"
    ffmpeg(*SILENCE, "testsrc2=s=160x96:r=5:d=1", "-vf", f"setsar={aspect}", *H264, path)
    (frame,), _ = media.read(str(path), [0.0])
    assert frame.shape[0] == 96
    # Matroska states the displayed size in whole pixels.
    assert abs(frame.shape[1] - width) <= 1
    if aspect in ("64/45", "8/9"):
        squeezed = ("-i", path, "-frames:v", 1, "-vf", "scale=iw*sar:ih", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
        right = np.frombuffer(ffmpeg(*squeezed), np.uint8)
        assert right.size == frame.size
        assert np.abs(frame.astype(int) - right.reshape(frame.shape)).mean() < 4


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path):
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    ffmpeg(*SILENCE, "testsrc2=s=160x96:r=5:d=1", "-vf", "setsar=2", *H264, plain)
    ffmpeg("-display_rotation", 90, "-i", plain, "-c", "copy", turned)
    (frame,), _ = media.read(str(turned), [0.0])
    assert frame.shape == (320, 96, 3)


@pytest.mark.parametrize(
    ("size", "named"),
    [
        (12_000, "frames of 12000 by 12000 have 144000000 pixels; at most 67108864"),
        (16_384, "none of its frames can be decoded"),
        (60_000, "none of its frames can be decoded"),
    ],
)
def test_huge_pictures_are_rejected_by_name(tmp_path, size, named):
    """The two larger sizes are beyond what the decoder opens at all."""
    path = tmp_path / "huge.mkv"
    ffmpeg(*SILENCE, "testsrc2=s=160x96:r=5:d=1", "-c:v", "ffv1", "-level", 3, path)
    data = path.read_bytes()
    where = data.index(b"\xb0\x81\xa0\xba\x81\x60")
    wide = b"\xb0\x82" + struct.pack(">H", size) + b"\xba\x82" + struct.pack(">H", size)
    path.write_bytes(grown(data, where, 6, wide))
    with pytest.raises(media.MediaError, match=named) as caught:
        next(media.frames(str(path), [0.0]))
    assert caught.value.outcome is Outcome.MEDIA_UNREADABLE


def grown(data, where, length, replacement):
    """Replace bytes inside the first track entry and correct the sizes of the elements around them."""
    out = bytearray(data)
    out[where : where + length] = replacement
    more = len(replacement) - length
    for name in (b"\x16\x54\xae\x6b", b"\xae", b"\xe0"):
        at = out.rindex(name, 0, where) + len(name)
        width = 9 - out[at].bit_length()
        value = int.from_bytes(out[at : at + width], "big") + more
        out[at : at + width] = value.to_bytes(width, "big")
    return bytes(out)


TONES = {"low": 400, "high": 3000}


def tone(path, **arguments):
    """Which of the tones is heard."""
    with media.sound(path, **arguments) as track:
        spectrum = np.abs(np.fft.rfft(track.read(22_050, 22_050)))
    return min(TONES, key=lambda name: abs(TONES[name] - int(spectrum.argmax()))), track.track


def two_tracks(path, first, second):
    """The low tone, then the high one, each with its options."""
    sources = [x for f in TONES.values() for x in (*SILENCE, f"sine=f={f}:d=3:r=44100")]
    options = [str(x).replace("STREAM", f"a:{i}") for i, more in enumerate((first, second)) for x in more]
    picture = (*SILENCE, "testsrc2=s=160x96:r=5:d=3")
    ffmpeg(*sources, *picture, "-map", 2, "-map", 0, "-map", 1, *H264, *AAC, *options, path)
    return str(path)


def tag(language=None, disposition="0"):
    named = ("-metadata:s:STREAM", f"language={language}") if language else ()
    return (*named, "-disposition:STREAM", disposition)


LANGUAGE_TRACKS = [
    (tag(), tag(), None, "low", None),
    (tag(), tag(disposition="default"), None, "high", None),
    (tag("ger", "default"), tag("eng"), "en", "high", "eng"),
    (tag("ger", "default"), tag("eng"), "de", "low", "ger"),
    (tag("eng", "default"), tag("deu"), "de-AT", "high", "deu"),
    (tag("fre"), tag("spa", "default"), "en", "high", "spa"),
    (tag("eng", "comment"), tag("eng", "default"), "en", "high", "eng"),
]
"""First track, second track, wanted language, the track that is heard, and its name."""

IMPAIRED_TRACKS = [
    (tag("eng", "visual_impaired+default"), tag("fre"), "en", "high", "fre"),
    (tag("eng", "hearing_impaired"), tag("eng"), "eng", "high", "eng"),
]
"""As `LANGUAGE_TRACKS`, in Matroska alone: ffmpeg writes no such disposition to MP4."""


@pytest.mark.parametrize(
    ("suffix", "first", "second", "language", "heard", "name"),
    [
        *((suffix, *tracks) for suffix in ("mp4", "mkv") for tracks in LANGUAGE_TRACKS),
        *(("mkv", *tracks) for tracks in IMPAIRED_TRACKS),
    ],
)
def test_the_track_is_that_of_the_language_or_the_default(tmp_path, suffix, first, second, language, heard, name):
    path = two_tracks(tmp_path / f"two.{suffix}", first, second)
    which, track = tone(path, language=language)
    assert which == heard
    assert track == name or (name is None and track in ("1", "2", "und"))


def test_codes_of_one_language_are_one():
    for codes in (
        ("en", "eng", "en-US", "EN_gb"),
        ("de", "ger", "deu"),
        ("zh-Hans", "chi", "zho"),
        ("he", "iw", "heb"),
    ):
        assert len({stated_language(code) for code in codes}) == 1, codes
    different = ["en", "de", "fr", "no", "nb", "xyz"]
    assert all(stated_language(a) != stated_language(b) for a, b in itertools.combinations(different, 2))
    assert [stated_language(tag) for tag in ("und", "", None, "mul")] == [None] * 4


def test_the_picture_is_the_default_one_and_no_cover(tmp_path):
    cover, path = tmp_path / "cover.jpg", tmp_path / "two.mp4"
    ffmpeg(*SILENCE, "color=red:s=64x64:d=1:r=1", "-frames:v", 1, cover)
    sources = [x for c in ("green", "blue") for x in (*SILENCE, f"color={c}:s=160x96:r=5:d=2")]
    marks = ("-disposition:v:0", "attached_pic", "-disposition:v:1", "0", "-disposition:v:2", "default")
    maps = ("-map", 2, "-map", 0, "-map", 1, "-c:v:0", "copy", "-c:v:1", "mpeg4", "-c:v:2", "mpeg4")
    ffmpeg(*sources, "-i", cover, *maps, *marks, path)
    (frame,), _ = media.read(str(path), [1.0])
    assert frame.shape == (96, 160, 3)
    assert frame[48, 80].argmax() == 2
    ffmpeg(
        "-i",
        cover,
        *SILENCE,
        "sine=d=2",
        "-map",
        0,
        "-map",
        1,
        "-c:v",
        "copy",
        "-disposition:v",
        "attached_pic",
        *AAC,
        path,
    )
    assert not media.probe(str(path)).has_picture
