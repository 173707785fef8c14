"""Text that is not speech: titles, descriptions, tags and web pages.

The web cleaner converts written text to the style of speech recognition (docs/spec/ingest.md 8.4); the description
cleaner removes text that is not speech (docs/spec/ingest.md 8.3). Input text may contain special tokens; `neutralise`
converts them to plain text. The tables of the cleaners are imported on demand, because decoder processes only
neutralise.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from shards.tokens import SPECIAL_TOKENS

_URL = re.compile(
    r"\b(?:https?://|www\d{0,3}\.|[a-z0-9.\-]{1,253}\.[a-z]{2,4}/)"
    r"(?:[^\s()<>]|\((?:[^\s()<>]|\([^\s()<>]{1,2000}\)){0,2000}\))+"
    r"(?:\((?:[^\s()<>]|\([^\s()<>]{1,2000}\)){0,2000}\)|[^\s`!()\[\]{};:'\".,<>?«»“”‘’])",
    re.IGNORECASE,
)
_SPECIAL = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
_MARKUP = re.compile(r"<p>|<strong>|><p>|<br>|<em>|<span>|\[unreadable\]")
_NOTHING_TO_REPAIR = re.compile(r"(?:[\t\n !-%'-~]|&(?!#?[0-9A-Za-z]))*")
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_PLAIN_ASCII = {ord(c): " " for c in "()<>{}[]^_|~-"} | {ord("`"): "'"}
_EMOJI_RUN = re.compile("[0-9#*]?[\xa9\xae\u200d\u203c-\U0010ffff]+")
_REPEATS = re.compile(r"([-$%&'+,./:;?!@\[\]\\_’\"=])\1+")
_SPELLED = {
    "&": " and ",
    "/": " slash ",
    "@": " at ",
    "\\": " backslash ",
    "+": " plus ",
    "%": " percent ",
    "=": " equals ",
}
_DOLLARS = re.compile(r"\$(\d+)(?:\.\d+)?", re.ASCII)
_ORDINAL = re.compile(r"(\d+)(?:rd|nd|th|st)", re.ASCII)
_CLOCK = re.compile(r"\b(\d{1,2}):(\d{2})\b", re.ASCII)
_SMALL_NUMBER = re.compile(r"(?<!\d)0*(\d{1,2})(?!\d)", re.ASCII)
_LONGEST_NUMBER = 30
"""Maximum number of digits of a number that is spelled out."""


def neutralise(text: str) -> str:
    """Break up spellings of special tokens, so that input text is never encoded to one."""
    return _SPECIAL.sub(lambda match: match[0].replace("|", " "), text)


def clean_description(text: str) -> str:
    """Name emoji, replace addresses by `%`, squeeze blanks (docs/spec/ingest.md 8.3)."""
    text = _URL.sub("%", _name_emoji(text).strip())
    return re.sub(r"\s*\n", "\n", re.sub(" +", " ", text)).strip()


def clean_web_text(text: str, spell_numbers: bool) -> str:
    """Web text in the style of speech recognition, with numbers in words or as digits (docs/spec/ingest.md 8.4)."""
    text = _MARKUP.sub("", _name_emoji(_repair(text)))
    text = _REPEATS.sub(r"\1", _plain(text))
    for symbol, name in _SPELLED.items():
        text = text.replace(symbol, name)
    text = " ".join(text.split())
    return _spell_numbers(text) if spell_numbers else text


def _repair(text: str) -> str:
    """Return the result of `ftfy.fix_text`, which is called only for lines that may need repair."""
    if _NOTHING_TO_REPAIR.fullmatch(text):
        return text
    import ftfy

    repaired, unescape = [], True
    for line in _LINES.findall(text):
        # From the first line with markup on, character references are part of it.
        unescape = unescape and "<" not in line
        plain = f"{line[:-2]}\n" if line.endswith("\r\n") else line
        clean = _NOTHING_TO_REPAIR.fullmatch(plain)
        repaired.append(plain if clean else ftfy.fix_text(line, unescape_html=unescape))
    return "".join(repaired)


def _name_emoji(text: str) -> str:
    # The pattern of all emoji is slow, and none lies outside such a run.
    runs = set() if text.isascii() else set(_EMOJI_RUN.findall(text))
    if not runs:
        return text
    import demoji

    names = demoji.findall("\n".join(sorted(runs)))
    for emoji in sorted(names, key=lambda sequence: (-len(sequence), sequence)):
        text = text.replace(emoji, f"[{names[emoji].replace(' ', '')}]")
    return text


@functools.cache
def _plain_table() -> dict[int, str]:
    from unidecode import unidecode

    table = {code: unidecode(chr(code)) for code in range(0x80, 0x10000) if not 0xD800 <= code < 0xE000}
    return {code: plain for code, plain in table.items() if plain}


def _plain(text: str) -> str:
    """Transliterate to ASCII, then replace signs that are not spoken by blanks."""
    if not text.isascii():
        text = _NOT_ASCII.sub(lambda match: match[0].translate(_plain_table()), text)
    return text.translate(_PLAIN_ASCII)


def _spell_numbers(text: str) -> str:
    text = _DOLLARS.sub(lambda m: _words(m, m[1]) + " dollars", text)
    text = _ORDINAL.sub(lambda m: _words(m, m[1], to="ordinal"), text)
    text = _CLOCK.sub(_clock, text)
    return _SMALL_NUMBER.sub(lambda m: _small_number(int(m[1])), text)


@functools.cache
def _small_number(number: int) -> str:
    return _spoken(number)


def _words(match: re.Match, digits: str, **form: Any) -> str:
    return match[0] if len(digits) > _LONGEST_NUMBER else _spoken(int(digits), **form)


def _clock(match: re.Match) -> str:
    hour, minute = int(match[1]), int(match[2])
    if minute == 0:
        return _spoken(hour)
    return f"{_spoken(hour)} {'oh ' if minute < 10 else ''}{_spoken(minute)}"


def _spoken(number: int, **form: Any) -> str:
    from num2words import num2words

    return num2words(number, **form)
