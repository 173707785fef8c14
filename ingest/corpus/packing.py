"""Pack documents into token sequences of one length, as for the published random text (docs/spec/ingest.md 18).

Cleaned text has single blanks, and the vocabulary encodes every word separately, so the ids of words are cached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from ingest.corpus.documents import documents
from ingest.text import clean_web_text, neutralise
from shards.dataset.text_store import SEQUENCE_LENGTH
from shards.storage.randomness import generator
from shards.tokenizer import encode_words
from shards.tokens import END, START

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_WORDS = 400_000
"""Maximum number of cached words, about 100 MB."""

_LONGEST_WORD = 64
"""Maximum number of characters of a cached word."""

_LEAST_REST = SEQUENCE_LENGTH // 8
"""A remainder of a document of at most this number of ids is dropped."""


def packed_file(
    path: str, name: str, tokenizer: Tokenizer, seed: int, subsets: Collection[str], counts: Counter[str]
) -> Iterator[Int32[np.ndarray, "1536"]]:
    """Yield the sequences of one file of documents.

    `name` is the key of its random choices. `counts` is incremented by the outcomes of the documents.
    """
    encode = WordEncoder(tokenizer)
    rng = generator(seed, "spell numbers", name)

    def encoded() -> Iterator[list[int]]:
        for text in documents(path, subsets, counts):
            counts["characters"] += len(text)
            plain = neutralise(text) if "<|" in text else text
            counts["special-spelling"] += plain != text
            yield encode(clean_web_text(plain, rng.random() < 0.5))

    for sequence in pack(encoded(), counts):
        counts["sequences"] += 1
        yield sequence


def pack(texts: Iterable[list[int]], counts: Counter[str]) -> Iterator[Int32[np.ndarray, "1536"]]:
    """Yield sequences of the texts, each between START and END, end to end.

    A remainder of at most 192 ids after a text is dropped, and the next sequence starts with a text; so a text of at
    most that length is kept only after the remainder of a longer one. The last ids that do not fill a sequence are
    dropped, too.
    """
    rest: list[int] = []
    for text in texts:
        rest += [START, *text, END]
        whole = len(rest) // SEQUENCE_LENGTH * SEQUENCE_LENGTH
        yield from np.array(rest[:whole], np.int32).reshape(-1, SEQUENCE_LENGTH)
        rest = rest[whole:]
        if len(rest) <= _LEAST_REST:
            counts["dropped-tokens"] += len(rest)
            rest = []
    counts["dropped-tokens"] += len(rest)


class WordEncoder:
    """Encodes text word by word with a cache; the ids are equal to those of encoding it at once."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._known = _Words(tokenizer)

    def __call__(self, text: str) -> list[int]:
        """Return the ids of a cleaned text."""
        # If the vocabulary drops characters, a blank without a word can remain, which must be encoded in context.
        if not (text.isascii() and text.isprintable()):
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        return list(chain.from_iterable(map(self._known.__getitem__, text.split(" ")))) if text else []


class _Words(dict[str, tuple[int, ...]]):
    """A cache of the ids of words."""

    def __init__(self, tokenizer: Tokenizer):
        super().__init__()
        self.tokenizer = tokenizer

    def __missing__(self, word: str) -> tuple[int, ...]:
        (ids,) = encode_words(self.tokenizer, [word])
        if len(word) <= _LONGEST_WORD:
            if len(self) >= _MOST_WORDS:
                self.clear()
            self[word] = tuple(ids)
        return tuple(ids)
