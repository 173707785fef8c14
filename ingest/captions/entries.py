"""A caption's text with times, and the words that it adds to a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.captions.plain_text import continues, written_words
from ingest.captions.words import Word, share


@dataclass(frozen=True)
class Piece:
    """Plain text from a time on, in seconds."""

    text: str
    start: float


@dataclass(frozen=True)
class Entry:
    """What one caption adds: its pieces in the order of the text, and when the last one ends."""

    pieces: Sequence[Piece]
    end: float


def words_of(entry: Entry) -> list[Word]:
    """The written words of a caption.

    Words of one piece share its time evenly. A word ends where the next piece with words starts. A piece that starts
    inside a word belongs to the word before it.
    """
    words: list[Word] = []
    last = entry.pieces[0].start
    before = ""
    pieces = []
    for piece in entry.pieces:
        # Stamps that go back, or beyond the caption's end, are broken; times never run backwards.
        last = max(last, min(piece.start, entry.end))
        texts = written_words(piece.text)
        if texts:
            pieces.append((last, texts, continues(before, piece.text)))
        before = piece.text or before
    ends = [start for start, _, _ in pieces[1:]] + [max(entry.end, last)]
    for (start, texts, continued), end in zip(pieces, ends[: len(pieces)], strict=True):
        new = share(texts, start, end)
        if continued and words:
            new[0] = Word(words[-1].text + new[0].text, words.pop().start, new[0].end)
        words += new
    return words
