"""What is taken of what YouTube offers, as functions of yt-dlp's metadata alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.download import format_selection as offers
from ingest.language_codes import base_language


@pytest.mark.parametrize(
    ("code", "base"),
    [
        *[(code, "en") for code in ("en", "EN", "eng", "ENG", "en-GB", "en_US", "En-us", "en-orig", "eng_GB", " en ")],
        *[("iw", "he"), ("heb", "he"), ("ger", "de"), ("deu", "de"), ("jpn", "ja"), ("zh-Hans", "zh"), ("chi", "zh")],
        *[("yue", "yue"), ("und", "und"), ("", "")],
    ],
)
def test_codes_of_one_language_have_one_base(code, base):
    assert base_language(code) == base


def sound(language, preference=-1, **fields):
    return {"vcodec": "none", "acodec": "mp4a", "language": language, "language_preference": preference} | fields


@pytest.mark.parametrize(
    ("formats", "language", "spoken"),
    [
        ([sound("ja", 10), sound("en-US")], "en", "en-US"),
        ([sound("en-US"), sound("ja", 10)], "de", "ja"),
        ([sound("en-GB"), sound("en-US", 10)], "en", "en-US"),
        ([sound("en-GB"), sound("en-US")], "en_US", "en-US"),
        ([sound("en-desc", -10), sound("ja", 10)], "en", "ja"),
        ([sound("en", -10), sound("en-US", -1)], "en", "en-US"),
        ([sound("ja", 5), sound("fr")], "en", "ja"),
        ([sound(None)], "en", None),
        ([], "en", None),
    ],
)
def test_the_sound_of_a_video(formats, language, spoken):
    found = {"formats": formats}
    assert offers.sound_code(found, language) == spoken
    if spoken:
        kept = offers.chosen_formats({"formats": [*formats, {"vcodec": "avc1", "acodec": "none"}]}, spoken)
        assert {f.get("language") for f in kept} == {spoken, None}


def test_the_only_original_track_labels_the_sound():
    track = [{"ext": "vtt", "url": "https://x/t?lang=ja"}]
    translated = [{"ext": "vtt", "url": "https://x/t?lang=ja&tlang=en"}]
    assert offers.sound_code({"formats": [sound(None)], "automatic_captions": {"ja-orig": track}}, "en") == "ja"
    assert offers.sound_code({"formats": [sound(None)], "automatic_captions": {"en": translated}}, "en") == "ja"
    assert offers.sound_code({"automatic_captions": {"ja-orig": track, "en-orig": track}}, "en") is None


def test_sound_of_unknown_language_is_not_chosen():
    formats = [sound("ja", 10), sound("en"), sound(None)]
    assert [f["language"] for f in offers.chosen_formats({"formats": formats}, "en")] == ["en"]
    assert len(offers.chosen_formats({"formats": [sound("en"), sound(None)]}, "en")) == 2


@pytest.mark.parametrize(
    ("size", "side"),
    [({"width": 360, "height": 640}, 360), ({"width": 640, "height": 360}, 360), ({"height": 240}, 240)],
)
def test_the_short_side_of_a_format(size, side):
    assert offers.chosen_formats({"formats": [size]}, None)[0]["short_side"] == side


def test_a_translation_is_taken_only_where_nothing_better_is():
    forms = [{"ext": "vtt", "url": "https://x/{}?lang=ja"}, {"ext": "ttml", "url": "no"}]
    translated = [{"ext": "json3", "url": "https://x/en?lang=ja&tlang=en"}]
    found = {
        "formats": [sound("ja", 10)],
        "automatic_captions": {"ja-orig": forms, "en": translated},
        "subtitles": None,
    }
    automatic, uploaded = offers.ranked_captions(found, "en", "ja")
    assert [(o.code, o.form) for o in automatic] == [("en", "json3")]
    assert uploaded == []
    found["automatic_captions"]["en-orig"] = forms
    found["formats"].append(sound("en"))
    assert [o.code for o in offers.ranked_captions(found, "en", "en")[0]] == ["en-orig"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_FIELDS = ("language", "language_preference", "acodec", "vcodec", "width", "height", "has_drm", "protocol")
_FORMATS = st.lists(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(_FIELDS, _JSON),
    )
    | _JSON,
    max_size=4,
)
_TRACKS = st.dictionaries(
    st.sampled_from(["en", "en-orig", "ja-orig", "EN_us", "x"]),
    st.lists(st.fixed_dictionaries({"ext": _JSON | st.just("vtt"), "url": _JSON | st.just("a?tlang=en")}) | _JSON)
    | _JSON,
    max_size=4,
)


@given(
    st.fixed_dictionaries(
        {"formats": _FORMATS | _JSON, "automatic_captions": _TRACKS | _JSON, "subtitles": _TRACKS | _JSON}
    )
)
def test_any_metadata_give_one_language_and_no_crash(found):
    spoken = offers.sound_code(found, "en")
    kept = offers.chosen_formats(found, spoken)
    languages = {f["language"] for f in kept if isinstance(f.get("language"), str) and f.get("acodec") != "none"}
    if spoken is not None and any(isinstance(f.get("language"), str) and f["language"] for f in kept):
        assert len(languages - {""}) <= 1 or not offers.media_formats(found)
    automatic, uploaded = offers.ranked_captions(found, "en", spoken)
    assert all(base_language(offer.code) in ("en", "und") for offer in [*automatic, *uploaded])
    offers.is_protected(found)
