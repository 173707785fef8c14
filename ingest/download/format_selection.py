"""Select formats and caption tracks from yt-dlp's metadata, in one language for words and sound.

A dubbed video has several audio tracks, and an original ASR track for each of them. Formats are filtered before yt-dlp
selects one, so that the configurable format expression never selects sound in another language than the words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ingest.language_codes import base_language, same_language
from ingest.raw import CaptionTrack, RawVideo
from ingest.transcript import ORIGINAL_TRACKS, SOUND_LANGUAGE, TrackKind, ranked_tracks

SHORT_SIDE = "short_side"
"""Field added to formats for the format expression: the smaller of width and height."""

_CAPTION_FORMS = ("vtt", "json3", "srt")
_ORIGINAL_SUFFIX = "-orig"
_TRANSLATED_FROM = re.compile(r"[?&]lang=([A-Za-z0-9-]+)")
_DESCRIPTIVE_SUFFIX = "-desc"
_DESCRIPTIVE = -10
"""yt-dlp's `language_preference` of audio description; 10 is the original sound, 5 the default, -1 a dub."""


@dataclass(frozen=True)
class CaptionOffer:
    """One caption track in the metadata: its code in the raw layout, its format, and its URL."""

    code: str
    form: str
    address: str


def media_formats(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the playable formats with video or audio; storyboards have neither."""
    return [f for f in _media(metadata) if f.get("has_drm") is not True]


def is_protected(metadata: dict[str, Any]) -> bool:
    """Return whether there are formats with video or audio and all of them are protected by DRM."""
    return bool(_media(metadata)) and not media_formats(metadata)


def _media(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return [f for f in _dicts(metadata.get("formats")) if _has_sound(f) or _has_picture(f)]


def sound_code(metadata: dict[str, Any], language: str) -> str | None:
    """Return the code of the audio track to download: the original in `language`, else a dub, else the original.

    `None` if no format states a language and there is not exactly one original ASR track.
    """
    sounds = [f for f in media_formats(metadata) if _has_sound(f) and _language(f)]
    if not sounds:
        originals = sorted({base_language(code) for code in original_tracks(metadata)})
        return originals[0] if len(originals) == 1 else None

    def rank(sound: dict[str, Any]) -> tuple:
        code = _language(sound)
        # Not audio description, in the language, preference of the original, and with the region.
        return (
            not _is_descriptive(sound),
            same_language(code, language),
            _preference(sound),
            code.lower().replace("_", "-") == language.lower().replace("_", "-"),
        )

    return _language(max(sounds, key=rank))


def chosen_formats(metadata: dict[str, Any], spoken: str | None) -> list[dict[str, Any]]:
    """Return the formats without sound in another language than `spoken`, each with its `short_side`.

    If there are several audio tracks, sound without a stated language is excluded, too.
    """
    formats = _dicts(metadata.get("formats"))
    languages = {_language(f) for f in formats if _has_sound(f) and _language(f)}
    if spoken is not None and len(languages) > 1:
        formats = [f for f in formats if not _has_sound(f) or _language(f) == spoken]
    return [{**f, SHORT_SIDE: side} if (side := _short_side(f)) else f for f in formats]


def original_tracks(metadata: dict[str, Any]) -> list[str]:
    """Return the codes of the ASR tracks marked as original, or else of those that others are translated from."""
    tracks = _mapping(metadata.get("automatic_captions"))
    if marked := sorted(code for code in tracks if code.lower().endswith(_ORIGINAL_SUFFIX)):
        return marked
    addresses = [offer.address for offer in _offered({"automatic_captions": tracks})]
    return sorted({match[1] for a in addresses if "tlang=" in a and (match := _TRANSLATED_FROM.search(a))})


def ranked_captions(
    metadata: dict[str, Any], language: str, spoken: str | None
) -> tuple[list[CaptionOffer], list[CaptionOffer]]:
    """Return the automatic and the uploaded tracks in `language`, best first, each in its best format.

    Machine translations are included only if there is no original track.
    """
    offers = {offer.code: offer for offer in _offered(metadata)}
    tracks = [CaptionTrack(offer.code, offer.form, "") for offer in offers.values()]
    known = {ORIGINAL_TRACKS: original_tracks(metadata)} | ({SOUND_LANGUAGE: spoken} if spoken else {})
    ranked = ranked_tracks(RawVideo("", None, tracks, known), language)
    uploaded = [offers[track.code] for kind, track in ranked if kind is TrackKind.UPLOADED]
    originals = [offers[track.code] for kind, track in ranked if kind is TrackKind.ASR_ORIGINAL]
    translated = [offers[track.code] for kind, track in ranked if kind is TrackKind.ASR_TRANSLATED]
    # A translation may be recognisable only by the target language in its URL.
    untranslated = [offer for offer in originals if "tlang=" not in offer.address]
    return untranslated or originals or translated, uploaded


def _offered(metadata: dict[str, Any]) -> Iterator[CaptionOffer]:
    for kind, suffix in (("automatic_captions", ""), ("subtitles", "-manual")):
        for code, forms in sorted(_mapping(metadata.get(kind)).items()):
            stated = [(f.get("ext"), f.get("url")) for f in _dicts(forms)]
            addresses = {ext: url for ext, url in stated if isinstance(ext, str) and isinstance(url, str) and url}
            form = next((form for form in _CAPTION_FORMS if form in addresses), None)
            if form is not None:
                yield CaptionOffer(code + suffix, form, addresses[form])


def _has_sound(form: dict[str, Any]) -> bool:
    return _has(form, "acodec")


def _has_picture(form: dict[str, Any]) -> bool:
    return _has(form, "vcodec")


def _has(form: dict[str, Any], codec: str) -> bool:
    # An extractor omits an unknown codec; a storyboard states that it has none.
    return form.get(codec) != "none" and form.get("protocol") != "mhtml" and form.get("ext") != "mhtml"


def _language(form: dict[str, Any]) -> str:
    code = form.get("language")
    return code if isinstance(code, str) else ""


def _preference(form: dict[str, Any]) -> float:
    value = form.get("language_preference")
    return value if isinstance(value, int | float) else -1


def _is_descriptive(form: dict[str, Any]) -> bool:
    return _preference(form) <= _DESCRIPTIVE or _language(form).lower().endswith(_DESCRIPTIVE_SUFFIX)


def _short_side(form: dict[str, Any]) -> float | None:
    sides = [form.get(name) for name in ("width", "height")]
    known = [side for side in sides if isinstance(side, int | float) and side > 0]
    return min(known, default=None)


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, Iterable) else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
