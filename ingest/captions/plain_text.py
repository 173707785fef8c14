"""Convert the text of a caption to words, without tags, character references and invisible characters.

A word is visible text between two blanks. Markup inside it does not split it, and a no-break space splits only two
letters, so that a censored word, `[ __ ]`, and `10 000` are single words.
"""

from __future__ import annotations

import html
import re
import unicodedata

TIME_TAG = re.compile(r"<\s*((?:\d+:)?\d+:\d+[.,]\d+)\s*>", re.ASCII)
"""A WebVTT timestamp tag (W3C WebVTT, section 4.2.2)."""

_RUBY_TEXT = re.compile(r"<r[tp]\b[^<>]*>[^<]*(?:<(?!/r)[^<]*)*(?:</r[tp]>)?", re.IGNORECASE)
"""The pronunciation of the text before it, which is spoken once."""

_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"<(?:/?[A-Za-z][^<>]*|[\d:.,\s]*|[./!][^<>]*)>")
_STYLE_OVERRIDE = re.compile(r"\{(?:\\|[yYcCfFsSpP]:)[^{}]*\}")
_STYLE_BREAK = re.compile(r"\\[Nh]")

_LETTER = r"[^\W\d_]"
_BLANKS = re.compile(
    "[ \t\n\v\f\r\x1c-\x1f\x85\u1680\u2000-\u2006\u2008-\u200a\u2028\u2029\u205f\u3000]+"
    rf"|(?<={_LETTER})[\xa0\u2007\u202f]+(?={_LETTER})"
)
_NO_BREAK_SPACES = "\xa0\u2007\u202f"
_INVISIBLE = dict.fromkeys(
    (
        *(code for code in range(0x20) if chr(code) not in "\t\n\v\f\r\x1c\x1d\x1e\x1f"),
        *(code for code in range(0x7F, 0xA0) if code != 0x85),
        *(0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, 0xFEFF),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        *range(0xFFF9, 0xFFFC),
    )
)
"""Control, direction and zero-width characters, except the joiners that shape emoji and scripts."""

_BLANK_LETTERS = frozenset("\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SPEAKER_CHANGE = re.compile(r">{2,3}")
_WRITTEN_WITHOUT_BLANKS = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u30ff\u31f0-\u31ff\u3400-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, and Chinese and Japanese characters."""


def plain(payload: str) -> str:
    """Return the text of a cue payload without markup; a line break tag becomes a blank."""
    if "<" in payload:
        payload = _TAG.sub("", _RUBY_TEXT.sub("", _BREAK_TAG.sub(" ", payload)))
    if "{" in payload or "\\" in payload:
        payload = _STYLE_BREAK.sub(" ", _STYLE_OVERRIDE.sub("", payload))
    return html.unescape(payload) if "&" in payload else payload


def written_words(text: str) -> list[str]:
    """Split plain text at blanks and drop invisible characters.

    The mark of a speaker change, `>>`, stays with the word after it, as in the strict parser.
    """
    words: list[str] = []
    mark = ""
    for word in _BLANKS.split(text.translate(_INVISIBLE)):
        word = word.strip(_NO_BREAK_SPACES)
        if word and (word.isascii() or _is_visible(word)):
            words.append(mark + word)
            mark = f"{words.pop()} " if _SPEAKER_CHANGE.fullmatch(word) else ""
    return [*words, mark.strip()] if mark else words


def continues(before: str, after: str) -> bool:
    """Return whether `after` continues the last word of `before`: no blank between them, in a script with blanks."""
    before, after = before.translate(_INVISIBLE), after.translate(_INVISIBLE)
    if not before or not after or _BLANKS.fullmatch(before[-1]) or _BLANKS.fullmatch(after[0]):
        return False
    return not (_WRITTEN_WITHOUT_BLANKS.match(before[-1]) or _WRITTEN_WITHOUT_BLANKS.match(after[0]))


def _is_visible(word: str) -> bool:
    return any(
        character not in _BLANK_LETTERS
        and unicodedata.category(character)[0] not in "CZ"
        and not "\ufe00" <= character <= "\ufe0f"
        for character in word
    )
