"""Validation of `tokenizer.json` files before the tokenizers library, which can abort the process, parses them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shards.storage import filesystem
from shards.storage.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.json"
"""File name of the tokenizer of a data folder or a checkpoint."""

MAX_BYTES = 64 << 20
"""Maximum size of a tokenizer file; the published one has under a megabyte."""

MAX_TOKENS = 1 << 20

_PARTS = {
    "normalizer": ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Sequence"),
    "pre_tokenizer": ("ByteLevel", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Digits", "Sequence"),
    "post_processor": ("ByteLevel",),
    "decoder": ("ByteLevel",),
    "model": ("BPE",),
}
"""Supported parts: time and memory of encoding depend on the text alone; none has a pattern or text of its own."""

_LISTS = ("normalizers", "pretokenizers")
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix", "unk_token")
_MAX_AFFIX = 64
_MAX_TOKEN = 4096


class TokenizerError(UserError):
    """A file is not a supported vocabulary; the message says why."""


def read(path: str) -> bytes:
    """Return the bytes of a tokenizer file. Raises `TokenizerError` if it is too large, or `StorageError`."""
    if (size := filesystem.size(path)) > MAX_BYTES:
        raise TokenizerError(f"{path} is not a tokenizer file: it has {size:,} bytes, more than {MAX_BYTES:,}")
    return filesystem.read_bytes(path)


def parse(data: bytes, file: str) -> Tokenizer:
    """Return the tokenizer in the bytes of `file`, without padding and truncation. Raises `TokenizerError`."""
    from tokenizers import Tokenizer

    try:
        text = data.decode()
        _check(json.loads(text))
        tokenizer = Tokenizer.from_str(text)
        # Our own code pads and truncates texts; the library would allocate a length from a damaged file.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode("a b", add_special_tokens=False)
    # The library raises plain `Exception`s for bad files, and its panics derive from `BaseException`.
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:120]
        raise TokenizerError(f"{file} is not a tokenizer file: {reason}; restore it") from None
    return tokenizer


def is_panic(error: BaseException) -> bool:
    """Return whether an exception is a panic of a library written in Rust."""
    return type(error).__module__ == "pyo3_runtime"


def _check(values: Any) -> None:
    """Raise `ValueError` for settings that are not supported."""
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    for setting in ("padding", "truncation"):
        if values.get(setting) is not None:
            _check_lengths(setting, values[setting])
    for part, known in _PARTS.items():
        _check_part(part, values.get(part), known, 2)
    model = values.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
        raise ValueError("it has no model with a vocabulary")
    if model.get("dropout") is not None:
        raise ValueError(f"its model drops merges at random (dropout {str(model['dropout'])[:20]})")
    for name in _AFFIXES:
        if model.get(name) is not None and len(str(model[name])) > _MAX_AFFIX:
            raise ValueError(f"its {name} is longer than {_MAX_AFFIX} characters")
    _check_vocabulary(model["vocab"], values.get("added_tokens"))


def _check_lengths(setting: str, values: Any) -> None:
    """Raise `ValueError` for a padding or truncation length out of range."""
    lengths = [values] if not isinstance(values, dict) else [*values.values()]
    lengths += [inner for value in lengths if isinstance(value, dict) for inner in value.values()]
    if invalid := [n for n in lengths if isinstance(n, int) and not 0 <= n <= MAX_TOKENS]:
        raise ValueError(f"its {setting} has the length {str(invalid[0])[:40]}")


def _check_part(part: str, values: Any, known: tuple[str, ...], levels: int) -> None:
    if values is None:
        return
    kind = values.get("type", "BPE" if part == "model" else None) if isinstance(values, dict) else None
    if kind not in known or not levels:
        raise ValueError(f"its {part} is {str(kind)[:40]!r}; supported are {', '.join(known)}")
    for name in _LISTS:
        inner = values.get(name, [])
        if not isinstance(inner, list) or len(inner) > 16:
            raise ValueError(f"its {part} is not a list of at most 16 parts")
        for component in inner:
            _check_part(part, component, known, levels - 1)


def _check_vocabulary(vocabulary: dict[str, Any], added: Any) -> None:
    added = [] if added is None else added
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError("its added tokens are not a list of objects")
    ids = [*vocabulary.values(), *(token.get("id") for token in added)]
    if len(ids) > MAX_TOKENS:
        raise ValueError(f"it has {len(ids):,} tokens, more than {MAX_TOKENS:,}")
    if not all(type(token_id) is int and 0 <= token_id < MAX_TOKENS for token_id in ids):
        raise ValueError(f"it has an id that is not a number below {MAX_TOKENS:,}")
    if any(len(str(token)) > _MAX_TOKEN for token in (*vocabulary, *(token.get("content") for token in added))):
        raise ValueError(f"it has a token of more than {_MAX_TOKEN} characters")
