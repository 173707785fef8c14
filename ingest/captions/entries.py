"""A caption's text with times, and the words that it adds to a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.captions.plain_text import continues, written_words
from ingest.captions.words import Word, share


@dataclass(frozen=True)
class Piece:
    """Plain text and its start in seconds."""

    text: str
    start: float


@dataclass(frozen=True)
class Entry:
    """The new text of one caption: its pieces in order, and the end of the last one in seconds."""

    pieces: Sequence[Piece]
    end: float


def words_of(entry: Entry) -> list[Word]:
    """Return the words of a caption.

    The words of a piece share its time evenly. The last one ends where the next piece with words starts. A piece that
    starts inside a word is appended to that word.
    """
    words: list[Word] = []
    last = entry.pieces[0].start
    before = ""
    pieces = []
    for piece in entry.pieces:
        # Stamps that decrease, or exceed the caption's end, are clipped, so that times never decrease.
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
