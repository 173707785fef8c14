"""Load the published byte-level BPE vocabulary or one from a file, or train one on text.

`tokenizers` is imported only when a vocabulary is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shards import tokenizer_file
from shards.storage import fetch
from shards.storage.errors import StorageError
from shards.tokenizer_file import TokenizerError
from shards.tokens import FIRST_TEXT_ID, SPECIAL_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PUBLISHED = "published"
SMALLEST_VOCABULARY = FIRST_TEXT_ID + 256
"""The special tokens and one token per byte."""


def load_tokenizer(path: str | Path | None = None) -> Tokenizer:
    """Return the vocabulary in the file `path`, or the published one for `None`.

    Raises `TokenizerError` if the file is not a vocabulary or its special tokens have other ids, `FetchError` if the
    published one cannot be downloaded.
    """
    return parse(content(path), PUBLISHED if path is None else str(path))


def parse(data: bytes, file: str) -> Tokenizer:
    """Return the vocabulary in the bytes of `file`.

    Raises `TokenizerError` if they are not a vocabulary or its special tokens have other ids.
    """
    tokenizer = tokenizer_file.parse(data, file)
    _check(tokenizer, file)
    return tokenizer


def content(path: str | Path | None = None) -> bytes:
    """Return the bytes of a vocabulary file; `None` or `published` downloads the published one.

    Raises `TokenizerError` if the file cannot be read.
    """
    if path is None or str(path) == PUBLISHED:
        return fetch.fetch(fetch.TOKENIZER, flag="--tokenizer").read_bytes()
    try:
        return tokenizer_file.read(str(path))
    except StorageError as error:
        raise TokenizerError(f"there is no tokenizer file {str(path)!r}: {error}") from None


def digest(path: str | Path | None = None) -> str:
    """Return the SHA-256 of a vocabulary file, which identifies it in data folders and checkpoints."""
    return hashlib.sha256(content(path)).hexdigest()


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
    """Train a byte-level BPE with the published pipeline and special tokens on `texts`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if vocabulary_size < SMALLEST_VOCABULARY:
        raise TokenizerError(f"a vocabulary of {vocabulary_size} is too small; it needs at least {SMALLEST_VOCABULARY}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=True, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_words(tokenizer: Tokenizer, words: list[str]) -> list[list[int]]:
    """Return the ids of each word, encoded separately so that every word starts with its space marker.

    Raises `TokenizerError` for a word that the vocabulary cannot encode.
    """
    try:
        return [encoding.ids for encoding in tokenizer.encode_batch(words, add_special_tokens=False)]
    except BaseException as error:
        if not tokenizer_file.is_panic(error):
            raise
        raise TokenizerError(f"the vocabulary cannot encode a text: {str(error)[:120]}; restore it") from None


def _check(tokenizer: Tokenizer, file: str) -> None:
    for expected, token in enumerate(SPECIAL_TOKENS):
        if tokenizer.token_to_id(token) != expected:
            raise TokenizerError(
                f"{file} is not a vocabulary of Reservoir: {token} has id {tokenizer.token_to_id(token)} instead of"
                f" {expected}; train one with 'python -m shards train-tokenizer'"
            )
