"""Documents become token sequences of one length, as the published random text was made (docs/spec/ingest.md 18).

Cleaned text has single blanks, and the vocabulary encodes every word apart, so each word is encoded once and looked up
afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ingest.corpus.documents import documents
from ingest.text import clean_web_text, neutralise
from shards.dataset.text_store import SEQUENCE_LENGTH
from shards.storage.randomness import generator
from shards.tokenizer import encode_words
from shards.tokens import END, START

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_WORDS = 400_000
"""Words remembered, some 100 MB."""

_LONGEST_WORD = 64
"""Characters of the longest word that is remembered."""

_LEAST_REST = SEQUENCE_LENGTH // 8
"""Ids left over by a document that are worth keeping."""


def packed_file(
    path: str, name: str, tokenizer: Tokenizer, seed: int, subsets: Collection[str], counts: Counter[str]
) -> Iterator[np.ndarray]:
    """The sequences `int32 [1536]` of one file of documents.

    `name` is what its random choices are keyed by. `counts` takes up what became of the documents.
    """
    encode = WordEncoder(tokenizer)
    spelled = generator(seed, "spell numbers", name)

    def encoded() -> Iterator[list[int]]:
        for text in documents(path, subsets, counts):
            counts["characters"] += len(text)
            plain = neutralise(text) if "<|" in text else text
            counts["special-spelling"] += plain != text
            yield encode(clean_web_text(plain, spelled.random() < 0.5))

    for sequence in pack(encoded(), counts):
        counts["sequences"] += 1
        yield sequence


def pack(texts: Iterable[list[int]], counts: Counter[str]) -> Iterator[np.ndarray]:
    """Sequences `int32 [1536]` of the texts between START and END, end to end.

    At most 192 ids that a text leaves over are dropped, and the next sequence starts with a text; so texts as short as
    that survive only behind the rest of a longer one. The last ids that fill no sequence are dropped too.
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
    """Encodes text word by word; the same ids as encoding it at once."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self._known = _Words(tokenizer)

    def __call__(self, text: str) -> list[int]:
        """The ids of a cleaned text."""
        # Characters that the vocabulary drops can leave a blank without a word, which only it knows how to spell.
        if not (text.isascii() and text.isprintable()):
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        return list(chain.from_iterable(map(self._known.__getitem__, text.split(" ")))) if text else []


class _Words(dict[str, tuple[int, ...]]):
    """The ids of every word asked for so far."""

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
