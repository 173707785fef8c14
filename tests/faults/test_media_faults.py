"""Every way in which media can be wrong ends as a named outcome of that video, and the next video is unharmed."""

import os
import signal
import struct
import subprocess
import tempfile
import threading
import time
import wave

import numpy as np
import psutil
import pytest

from ingest.ffmpeg import ffmpeg_path
from ingest.filters import FilterConfig
from ingest.raw import CaptionTrack, RawVideo
from ingest.video import VideoConfig
from pipelines.extraction.decoding import Extractor, Limits
from pipelines.runner.sandbox import DECODER_PREFIX
from shards.outcomes import Outcome
from shards.tokenizer import train_tokenizer

pytestmark = pytest.mark.faults

SECONDS = 24


def stamp(seconds):
    return f"00:{int(seconds) // 60:02d}:{seconds % 60:06.3f}"


def track(seconds=SECONDS):
    """An ASR track with two words a second."""
    cues = []
    for s in range(1, seconds - 1):
        cues.append(
            f"{stamp(s)} --> {stamp(s + 0.99)} align:start position:0%\n \nword<{stamp(s + 0.5)}><c> other</c>\n"
        )
    return "WEBVTT\n\n" + "\n".join(cues)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(train_tokenizer(["word other"], 266).to_str())
    rules = FilterConfig(max_seconds=None, min_words_per_30s=None, min_language_probability=None)
    return VideoConfig(tokenizer=str(path), timing_model="none", filters=rules)


@pytest.fixture(scope="module")
def child(config, tmp_path_factory):
    scratch = tmp_path_factory.mktemp("scratch")
    built = Extractor(config, Limits(seconds=120, memory_bytes=2 << 30))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(scratch))
        yield built
    built.close()
    assert list(scratch.iterdir()) == [], "temporary files go with the child"


@pytest.fixture
def extractor(child, faults, request):
    """The child, with a line in the table of faults for what became of the test's first video."""
    seen = []

    def extract(raw):
        extracted = child(raw)
        seen.append(extracted.result)
        return extracted

    yield extract
    name = request.node.name.removeprefix("test_").replace("_", " ")
    faults.record(name, seen[0].outcome.value, seen[0].detail or f"{len(seen[0].segments)} segments")


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Media from ffmpeg's own sources."""
    folder = tmp_path_factory.mktemp("media")

    def built(name, *arguments):
        path = folder / name
        command = [ffmpeg_path(), "-nostdin", "-y", "-loglevel", "error", *map(str, arguments), str(path)]
        subprocess.run(command, check=True, timeout=240)
        return path

    return built


def picture(size="320x180", seconds=SECONDS, rate=10, source="testsrc2"):
    return ["-f", "lavfi", "-i", f"{source}=size={size}:rate={rate}:duration={seconds}"]


def tone(seconds=SECONDS):
    return ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds}"]


ENCODE = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac"]


def raw(path, **info):
    return RawVideo("video", str(path) if path else None, [CaptionTrack("en", "vtt", track())], info)


@pytest.fixture(scope="module")
def good(make):
    return make("good.mp4", *picture(), *tone(), *ENCODE)


def segments(extracted):
    result = extracted.result
    assert result.outcome is Outcome.EXTRACTED, (result.outcome, result.detail)
    return result.segments


def test_a_good_video(extractor, good):
    assert len(segments(extractor(raw(good)))) == 4


def damaged(good, tmp_path, change):
    data = bytearray(good.read_bytes())
    change(data)
    path = tmp_path / "bad.mp4"
    path.write_bytes(bytes(data))
    return path


def wipe_index(data):
    where = data.find(b"moov")
    data[where : where + 4] = b"xxxx"


def scramble(data):
    rng = np.random.default_rng(0)
    start = data.find(b"mdat") + 8
    stop = data.find(b"moov") if data.find(b"moov") > start else len(data)
    for at in rng.integers(start, stop, 2000):
        data[at] ^= 0xFF


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        (lambda d: d.clear(), {Outcome.MEDIA_UNREADABLE}),
        (lambda d: d.__delitem__(slice(100, None)), {Outcome.MEDIA_UNREADABLE}),
        (wipe_index, {Outcome.MEDIA_UNREADABLE}),
        (lambda d: d.__setitem__(slice(None), b"<html>" * 1000), {Outcome.MEDIA_UNREADABLE}),
        (scramble, {Outcome.EXTRACTED, Outcome.FRAME_MISSING, Outcome.NO_SOUND}),
    ],
    ids=["empty", "cut in the header", "no index", "html", "scrambled"],
)
def test_corrupt_files(extractor, good, tmp_path, change, allowed):
    assert extractor(raw(damaged(good, tmp_path, change))).result.outcome in allowed
    assert len(segments(extractor(raw(good)))) == 4


def test_truncated_file(extractor, make, tmp_path):
    fast = make("fast.mp4", *picture(), *tone(), *ENCODE, "-movflags", "+faststart")
    path = tmp_path / "cut.mp4"
    path.write_bytes(fast.read_bytes()[: fast.stat().st_size // 2])
    outcome = extractor(raw(path)).result.outcome
    assert outcome in (Outcome.FRAME_MISSING, Outcome.MEDIA_UNREADABLE, Outcome.NO_SOUND)


def test_missing_file(extractor):
    assert extractor(raw(None)).result.outcome is Outcome.MEDIA_MISSING
    assert extractor(raw("/nonexistent/x.mp4")).result.outcome is Outcome.MEDIA_MISSING


def test_streams_that_are_not_there(extractor, make):
    assert extractor(raw(make("silentfilm.mp4", *picture(), *ENCODE))).result.outcome is Outcome.NO_SOUND
    assert extractor(raw(make("soundonly.m4a", *tone(), "-c:a", "aac"))).result.outcome is Outcome.NO_PICTURE


def test_sound_shorter_than_the_picture_is_silence(extractor, make):
    found = segments(extractor(raw(make("short.mp4", *picture(), *tone(8), *ENCODE))))
    assert len(found) == 4
    assert len({s.spectrogram for s in found[2:]}) == 1, "past the end there is silence"


@pytest.mark.parametrize("duration", [3, 1e9, -5, "long", None, True, float("nan")])
def test_stated_durations_that_are_wrong(extractor, good, duration):
    outcome = extractor(raw(good, duration=duration)).result.outcome
    assert outcome in (Outcome.EXTRACTED, Outcome.NO_SEGMENTS)
    assert (outcome is Outcome.NO_SEGMENTS) == (duration in (3, True))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "vfr.mkv",
            [
                *picture(rate=30),
                *tone(),
                "-vf",
                "select='not(mod(n\\,7))+not(mod(n\\,5))'",
                "-fps_mode",
                "vfr",
                *ENCODE,
            ],
        ),
        ("odd.mkv", [*picture("321x179"), *tone(), "-c:v", "ffv1", "-c:a", "flac"]),
        (
            "thin.mkv",
            [
                *picture("320x2"),
                *tone(),
                "-vf",
                "format=yuv444p,crop=320:1:0:0:exact=1",
                "-c:v",
                "ffv1",
                "-pix_fmt",
                "yuv444p",
                "-c:a",
                "flac",
            ],
        ),
        ("black.mp4", [*picture(source="color=c=black"), *tone(), *ENCODE]),
        ("mjpeg.avi", [*picture(), *tone(), "-c:v", "mjpeg", "-c:a", "pcm_s16le"]),
        (
            "negative.mp4",
            [*picture(), *tone(), *ENCODE, "-bf", "3", "-avoid_negative_ts", "disabled", "-output_ts_offset", "-0.5"],
        ),
        ("late.mp4", [*picture(), *tone(), *ENCODE, "-output_ts_offset", "100"]),
    ],
)
def test_odd_but_playable_media(extractor, make, name, arguments):
    if name == "black.mp4":
        arguments[1:4] = ["lavfi", "-i", f"color=c=black:size=320x180:rate=10:duration={SECONDS}"]
    found = segments(extractor(raw(make(name, *arguments))))
    assert len(found) >= 3
    assert all(s.width >= 1 and s.height >= 1 for s in found)


def test_rotation_is_applied(extractor, make, good):
    path = make("turned.mp4", "-display_rotation", "90", "-i", good, "-c", "copy")
    found = segments(extractor(raw(path)))
    assert (found[0].width, found[0].height) == (180, 320)


def test_silence_and_clipped_and_not_a_number_sound(extractor, make, tmp_path):
    silent = segments(
        extractor(raw(make("quiet.mp4", *picture(), "-f", "lavfi", "-i", f"anullsrc=duration={SECONDS}", *ENCODE)))
    )
    assert silent[0].magic == 255.0
    samples = np.full(22050 * SECONDS, 32767, np.int16)
    with wave.open(str(tmp_path / "clipped.wav"), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    assert segments(
        extractor(raw(make("clipped.mkv", *picture(), "-i", tmp_path / "clipped.wav", "-c:v", "ffv1", "-c:a", "flac")))
    )
    floats = np.sin(np.arange(22050 * SECONDS) / 30).astype("<f4")
    floats[::1000] = np.nan
    header = (
        b"RIFF"
        + struct.pack("<I", 50 + floats.nbytes)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHHH", 18, 3, 1, 22050, 88200, 4, 32, 0)
    )
    (tmp_path / "nan.wav").write_bytes(header + b"data" + struct.pack("<I", floats.nbytes) + floats.tobytes())
    found = segments(
        extractor(raw(make("nan.mkv", *picture(), "-i", tmp_path / "nan.wav", "-c:v", "ffv1", "-c:a", "copy")))
    )
    assert all(np.isfinite(s.magic) and s.magic > 0 for s in found)


def test_8k_needs_memory_and_says_so(config, make, good, tmp_path, faults):
    path = make("8k.mp4", *picture("7680x4320", rate=1), *tone(), *ENCODE)
    small = Extractor(config, Limits(seconds=120, memory_bytes=450 << 20))
    try:
        assert small(raw(path)).result.outcome in (Outcome.OUT_OF_MEMORY, Outcome.CRASHED)
        assert len(segments(small(raw(good)))) == 4
    finally:
        small.close()
    large = Extractor(config, Limits(seconds=120, memory_bytes=4 << 30))
    try:
        found = segments(large(raw(path)))
        assert (found[0].width, found[0].height) == (512, 288)
        faults.record("8K with 450 MB, with 4 GB", "out-of-memory, extracted", "the next video is unharmed")
    finally:
        large.close()


def during(extractor, video, action):
    """The result of a video at whose decoder `action` is done half a second into it."""
    extractor(video)
    child = extractor._child.process.pid
    results = []
    many = RawVideo("video", video.media, video.captions * 1, video.info)
    thread = threading.Thread(target=lambda: results.append([extractor(many) for _ in range(20)]))
    thread.start()
    time.sleep(0.5)
    action(child)
    thread.join(60)
    assert not thread.is_alive()
    assert not psutil.pid_exists(child)
    return [e.result.outcome for e in results[0]]


def test_a_decoder_that_crashes_takes_one_video_with_it(config, good, tmp_path, faults):
    extractor = Extractor(config, Limits(seconds=30))
    try:
        outcomes = during(extractor, raw(good), lambda pid: os.kill(pid, signal.SIGSEGV))
        assert outcomes.count(Outcome.CRASHED) == 1
        assert outcomes.count(Outcome.EXTRACTED) == 19
        faults.record("decoder crashes (SIGSEGV)", "crashed", "the 19 other videos are extracted")
    finally:
        extractor.close()


def test_a_decoder_that_hangs_is_ended(config, good, tmp_path, faults):
    extractor = Extractor(config, Limits(seconds=20))
    try:
        outcomes = during(extractor, raw(good), lambda pid: os.kill(pid, signal.SIGSTOP))
        assert outcomes.count(Outcome.TIMED_OUT) == 1
        assert outcomes.count(Outcome.EXTRACTED) == 19
        faults.record("decoder hangs (SIGSTOP)", "timed-out", "the 19 other videos are extracted")
    finally:
        extractor.close()


def test_the_decoder_dies_with_its_worker(good, tmp_path):
    """A worker killed with -9 in the middle of a video leaves no process behind."""
    code = (
        "import sys, time; from pipelines.extraction.decoding import Extractor, Limits; from ingest.video import VideoConfig\n"
        "from pipelines.runner.sandbox import Child; child = Child('pipelines.extraction.child', Limits()); print(child.process.pid, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    worker = subprocess.Popen([os.sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    child = int(worker.stdout.readline())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(DECODER_PREFIX)]
    worker.kill()
    worker.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(child)
    assert not list(tmp_path.iterdir()), "its temporary files go with it"
