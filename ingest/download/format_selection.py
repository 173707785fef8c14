"""What YouTube offers of a video, and what is taken of it: one language for words and sound, by yt-dlp's metadata.

A dubbed video has several audio tracks, and an original ASR track for each of them. Formats are filtered before yt-dlp
selects among them, so that the format expression, which is a setting, never picks sound of another language than the
words.
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
"""Field that formats get for the format expression: the smaller of width and height."""

_CAPTION_FORMS = ("vtt", "json3", "srt")
_ORIGINAL_SUFFIX = "-orig"
_TRANSLATED_FROM = re.compile(r"[?&]lang=([A-Za-z0-9-]+)")
_DESCRIPTIVE_SUFFIX = "-desc"
_DESCRIPTIVE = -10
"""yt-dlp's `language_preference` of audio description; 10 is the original sound, 5 the default, -1 a dub."""


@dataclass(frozen=True)
class CaptionOffer:
    """One caption track that the metadata advertise: its code in the raw layout, its form, and its address."""

    code: str
    form: str
    address: str


def media_formats(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The formats that hold picture or sound, and can be played; storyboards hold neither."""
    return [f for f in _media(found) if f.get("has_drm") is not True]


def is_protected(found: dict[str, Any]) -> bool:
    """Whether there are formats with picture or sound and all of them are protected by DRM."""
    return bool(_media(found)) and not media_formats(found)


def _media(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [f for f in _dicts(found.get("formats")) if _has_sound(f) or _has_picture(f)]


def spoken_in(found: dict[str, Any], language: str) -> str | None:
    """The code of the audio track to download: the original if it is in `language`, else a dub in it, or the original.

    `None` if no format states a language and no single ASR track is marked original.
    """
    sounds = [f for f in media_formats(found) if _has_sound(f) and _language(f)]
    if not sounds:
        originals = sorted({base_language(code) for code in original_tracks(found)})
        return originals[0] if len(originals) == 1 else None

    def rank(sound: dict[str, Any]) -> tuple:
        code = _language(sound)
        # Whether it is the speech, in the language, the original, and with the region.
        return (
            not _is_descriptive(sound),
            same_language(code, language),
            _preference(sound),
            code.lower().replace("_", "-") == language.lower().replace("_", "-"),
        )

    return _language(max(sounds, key=rank))


def chosen_formats(found: dict[str, Any], spoken: str | None) -> list[dict[str, Any]]:
    """The formats without sound of another language than `spoken`, each with its `short_side`.

    Where there are several audio tracks, sound whose language is not stated is left out too.
    """
    formats = _dicts(found.get("formats"))
    languages = {_language(f) for f in formats if _has_sound(f) and _language(f)}
    if spoken is not None and len(languages) > 1:
        formats = [f for f in formats if not _has_sound(f) or _language(f) == spoken]
    return [{**f, SHORT_SIDE: side} if (side := _short_side(f)) else f for f in formats]


def original_tracks(found: dict[str, Any]) -> list[str]:
    """The codes of the ASR tracks that are marked as original, or of those that the others are translations of."""
    tracks = _mapping(found.get("automatic_captions"))
    if marked := sorted(code for code in tracks if code.lower().endswith(_ORIGINAL_SUFFIX)):
        return marked
    addresses = [offer.address for offer in _offered({"automatic_captions": tracks})]
    return sorted({match[1] for a in addresses if "tlang=" in a and (match := _TRANSLATED_FROM.search(a))})


def ranked_captions(
    found: dict[str, Any], language: str, spoken: str | None
) -> tuple[list[CaptionOffer], list[CaptionOffer]]:
    """The automatic and the uploaded tracks in `language`, best first, each in its best form.

    Machine translations are among them only where there is no original track.
    """
    offers = {offer.code: offer for offer in _offered(found)}
    tracks = [CaptionTrack(offer.code, offer.form, "") for offer in offers.values()]
    known = {ORIGINAL_TRACKS: original_tracks(found)} | ({SOUND_LANGUAGE: spoken} if spoken else {})
    ranked = ranked_tracks(RawVideo("", None, tracks, known), language)
    uploaded = [offers[track.code] for kind, track in ranked if kind is TrackKind.UPLOADED]
    originals = [offers[track.code] for kind, track in ranked if kind is TrackKind.ASR_ORIGINAL]
    translated = [offers[track.code] for kind, track in ranked if kind is TrackKind.ASR_TRANSLATED]
    # A translation may have no mark but the target in its address.
    untranslated = [offer for offer in originals if "tlang=" not in offer.address]
    return untranslated or originals or translated, uploaded


def _offered(found: dict[str, Any]) -> Iterator[CaptionOffer]:
    for kind, suffix in (("automatic_captions", ""), ("subtitles", "-manual")):
        for code, forms in sorted(_mapping(found.get(kind)).items()):
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
    # An extractor that does not know a codec leaves it out; a storyboard says that it has none.
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
