import pytest

from ingest.captions import Word
from ingest.filters import Facts, FilterConfig, apply_filters, words_per_30s
from ingest.raw import CaptionTrack, RawVideo, from_folder
from ingest.transcript import TrackKind, TranscriptError, ranked_tracks, spoken_words
from shards.outcomes import Kind, Outcome

ASR = (
    "WEBVTT\n\n00:00:01.000 --> 00:00:03.000 align:start position:0%\n \n"
    "i<00:00:01.300><c> like</c><00:00:01.600><c> pan</c><00:00:01.900><c> cake</c><00:00:02.200><c> a</c><00:00:02.500><c> lot</c>\n"
)
UPLOADED = "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\nI like pancake a lot\n"


def raw(*tracks, **info):
    return RawVideo("v", None, [CaptionTrack(code, "vtt", text) for code, text in tracks], info)


def spoken(video, **options):
    settings = {"aligned": False, "strict": False, "repair": False} | options
    return spoken_words(video, "en", **settings)


def test_the_original_asr_track_comes_first():
    video = raw(("en-manual", UPLOADED), ("en", ASR), ("en-orig", ASR), ("de", ASR), ("en-GB", ASR))
    assert [(k, t.code) for k, t in ranked_tracks(video, "en")] == [
        (TrackKind.ASR_ORIGINAL, "en-orig"),
        (TrackKind.ASR_ORIGINAL, "en"),
        (TrackKind.ASR_ORIGINAL, "en-GB"),
        (TrackKind.UPLOADED, "en-manual"),
    ]


@pytest.mark.parametrize("video", [raw(("en", ASR), ("de-orig", ASR)), raw(("en", ASR), language="de")])
def test_a_machine_translation_is_recognised(video):
    assert spoken(video).kind is TrackKind.ASR_TRANSLATED


def test_uploaded_text_at_recognised_times():
    found = spoken(raw(("en", ASR), ("en-manual", UPLOADED)), aligned=True)
    assert [w.text for w in found.words] == ["I", "like", "pancake", "a", "lot"]
    assert found.words[2] == Word("pancake", 1.9, 2.2)
    assert found.kind is TrackKind.UPLOADED
    assert spoken(raw(("en", ASR)), aligned=True).kind is TrackKind.ASR_ORIGINAL


@pytest.mark.parametrize(
    ("video", "outcome"),
    [
        (raw(), Outcome.NO_CAPTIONS),
        (raw(("de", ASR)), Outcome.NO_CAPTIONS),
        (raw(("en-manual", UPLOADED)), Outcome.NO_WORD_TIMES),
        (raw(("en", UPLOADED)), Outcome.NO_WORD_TIMES),
        (raw(("en", "nothing")), Outcome.CAPTIONS_UNREADABLE),
        (raw(("en", ASR.replace("i<", "&a;<").split("<c>")[0] + "<c> &b;</c>\n")), Outcome.NO_WORDS),
    ],
)
def test_no_transcript_has_a_reason(video, outcome):
    with pytest.raises(TranscriptError) as caught:
        spoken(video)
    assert caught.value.outcome is outcome


def test_every_outcome_has_a_kind_and_a_sentence():
    for outcome in Outcome:
        assert isinstance(outcome.kind, Kind)
        assert outcome.sentence.endswith(".")


def english(count, gap=0.4):
    text = ["we", "are", "going", "to", "the", "market", "and", "then", "home", "again"]
    return [Word(text[i % 10], i * gap, i * gap + gap) for i in range(count)]


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({}, None),
        ({"words": []}, Outcome.NO_WORDS),
        ({"duration": None}, Outcome.DURATION_UNKNOWN),
        ({"duration": 1201.0}, Outcome.TOO_LONG),
        ({"categories": ["Gaming"]}, Outcome.CATEGORY),
        ({"words": english(100, 0.7)}, Outcome.SPARSE_SPEECH),
        ({"language": "de"}, Outcome.OTHER_LANGUAGE),
        ({"words": [Word(w.text.upper() * 2, w.start, w.end) for w in english(200)]}, Outcome.BAD_WORDS),
        (
            {"words": [Word(w.text * (1 + 9 * (i % 3 == 0)), w.start, w.end) for i, w in enumerate(english(200))]},
            Outcome.UNEVEN_WORDS,
        ),
    ],
)
def test_rules(change, outcome):
    facts = {
        "words": english(200),
        "duration": 90.0,
        "title": "A walk",
        "description": "",
        "categories": [],
        "language": "en",
    }
    broken, scores = apply_filters(Facts(**facts | change), FilterConfig(excluded_categories=("Gaming",)))
    assert broken is outcome
    assert {
        "duration",
        "words",
        "words_per_30s",
        "language",
        "language_probability",
        "good_words",
        "length_variance",
    } <= scores.keys()


def test_a_rule_switched_off_still_has_its_score():
    facts = Facts(english(20, 3.0), 90.0, "", "", [], "en")
    assert apply_filters(facts, FilterConfig())[0] is Outcome.SPARSE_SPEECH
    broken, scores = apply_filters(facts, FilterConfig(min_words_per_30s=None))
    assert broken is None
    assert scores["words_per_30s"] == 10


def test_density_bins():
    assert words_per_30s([]) == [0]
    assert words_per_30s([Word("a", t, t) for t in (0, 29.9, 30, 95)]) == [2, 1, 0, 1]


def test_files_beside_a_video(tmp_path):
    (tmp_path / "my film.mp4").write_bytes(b"")
    (tmp_path / "my film.en.vtt").write_bytes("\ufeffWEBVTT é".encode())
    (tmp_path / "my film.en.srt").write_bytes("1 caf\u00e9".encode("latin-1"))
    (tmp_path / "my film.en-orig.json3").write_text("{}")
    (tmp_path / "my film.info.json").write_text("[1, 2]")
    (tmp_path / "my film 2.en.vtt").write_text("of another video")
    found = from_folder(str(tmp_path / "my film.mp4"))
    assert [(t.code, t.form, t.text) for t in found.captions] == [
        ("en-orig", "json3", "{}"),
        ("en-manual", "srt", "1 caf\u00e9"),
        ("en", "vtt", "WEBVTT \u00e9"),
    ]
    assert found.info == {}
