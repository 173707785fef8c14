"""Detokenise text with the English rules of the Moses detokeniser, and repair the texts of VCR.

Implemented here so that no release of a library can change a text (docs/spec/finetune_data.md 2.3).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_OPENING = "([{¿¡"
_CLOSING = re.compile(r"[,.?!:;\\%}\])]+")
_QUOTES = re.compile(r"[\'\"„“”`]+")
_ESCAPED = {"&#124;": "|", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&#91;": "[", "&#93;": "]"}

_REPAIRS = (
    (re.compile(r" n't"), "n't"),
    (re.compile(r"n' t"), "n't"),
    (re.compile(r"\s([',.?])"), r"\1"),
    (re.compile(r"\b'\ss"), "'s"),
    (re.compile(r"-;"), " "),
    (re.compile(r"\s+"), " "),
)


def detokenise(tokens: Sequence[str]) -> str:
    """Return the tokens as English text: punctuation and contractions joined to words, quotation marks paired."""
    text = f" {' '.join(tokens)} ".replace(" @-@ ", "-")
    for escaped, plain in _ESCAPED.items():
        text = text.replace(escaped, plain)
    words = text.replace("&amp;", "&").split()
    joined, blank = "", " "
    opened: dict[str, bool] = {}
    for i, word in enumerate(words):
        if all(c in _OPENING or unicodedata.category(c) == "Sc" for c in word):
            joined, blank = joined + blank + word, ""
        elif _CLOSING.fullmatch(word) or (i > 0 and word[0] == "'" and word[1:2].isalpha()):
            joined, blank = joined + word, " "
        elif _QUOTES.fullmatch(word):
            mark = '"' if set(word) <= set("„“”") else word
            possessive = word == "'" and i > 0 and words[i - 1].endswith("s") and not opened.get(mark)
            if possessive:
                joined, blank = joined + word, " "
                continue
            closing = opened.get(mark, False)
            joined, blank = (joined + word, " ") if closing else (joined + blank + word, "")
            opened[mark] = not closing
        else:
            joined, blank = joined + blank + word, " "
    return re.sub(" {2,}", " ", joined).strip()


def repair(text: str) -> str:
    """Return the text with separated contractions and punctuation joined to their words, in the published order."""
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    return text.strip()
