"""What a `tokenizer.json` may say: checked before the library, whose faults can end the process, sees the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shards.storage import filesystem
from shards.storage.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_NAME = "tokenizer.json"
"""The tokenizer of a data folder or a checkpoint, in that folder."""

MAX_BYTES = 64 << 20
"""A larger file is refused; the published one has under a megabyte."""

MAX_TOKENS = 1 << 20

_PARTS = {
    "normalizer": ("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Sequence"),
    "pre_tokenizer": ("ByteLevel", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Digits", "Sequence"),
    "post_processor": ("ByteLevel",),
    "decoder": ("ByteLevel",),
    "model": ("BPE",),
}
"""Parts that encode in a time and memory that grow with the text alone: none with a pattern or a text of its own."""

_LISTS = ("normalizers", "pretokenizers")
_AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix", "unk_token")
_MAX_AFFIX = 64
_MAX_TOKEN = 4096


class TokenizerError(UserError):
    """A file is not a vocabulary this project can use; the message says why."""


def read(path: str) -> bytes:
    """The bytes of a tokenizer file. Raises `TokenizerError` if it is too large, or `StorageError`."""
    if (size := filesystem.size(path)) > MAX_BYTES:
        raise TokenizerError(f"{path} is not a tokenizer file: it has {size:,} bytes, more than {MAX_BYTES:,}")
    return filesystem.read_bytes(path)


def parse(data: bytes, file: str) -> Tokenizer:
    """The tokenizer in the bytes of `file`, without padding and truncation. Raises `TokenizerError`."""
    from tokenizers import Tokenizer

    try:
        text = data.decode()
        _check(json.loads(text))
        tokenizer = Tokenizer.from_str(text)
        # Texts are padded and cut here, and a length of a damaged file would be allocated.
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode("a b", add_special_tokens=False)
    # The library raises exceptions without a type of their own for bad files, and its panics are no `Exception`.
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        reason = " ".join(str(error).split())[:120]
        raise TokenizerError(f"{file} is not a tokenizer file: {reason}; restore it") from None
    return tokenizer


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a library written in Rust."""
    return type(error).__module__ == "pyo3_runtime"


def _check(values: Any) -> None:
    """Raise `ValueError` for settings that the library is not given."""
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
    """Raise `ValueError` for a length that no text has, in padding or truncation."""
    lengths = [values] if not isinstance(values, dict) else [*values.values()]
    lengths += [inner for value in lengths if isinstance(value, dict) for inner in value.values()]
    if wrong := [n for n in lengths if isinstance(n, int) and not 0 <= n <= MAX_TOKENS]:
        raise ValueError(f"its {setting} has the length {str(wrong[0])[:40]}")


def _check_part(part: str, values: Any, known: tuple[str, ...], levels: int) -> None:
    if values is None:
        return
    kind = values.get("type", "BPE" if part == "model" else None) if isinstance(values, dict) else None
    if kind not in known or not levels:
        raise ValueError(f"its {part} is {str(kind)[:40]!r}; known are {', '.join(known)}")
    for name in _LISTS:
        inner = values.get(name, [])
        if not isinstance(inner, list) or len(inner) > 16:
            raise ValueError(f"its {part} is not a list of at most 16 parts")
        for one in inner:
            _check_part(part, one, known, levels - 1)


def _check_vocabulary(vocabulary: dict[str, Any], added: Any) -> None:
    added = [] if added is None else added
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError("its added tokens are not a list of objects")
    ids = [*vocabulary.values(), *(token.get("id") for token in added)]
    if len(ids) > MAX_TOKENS:
        raise ValueError(f"it has {len(ids):,} tokens, more than {MAX_TOKENS:,}")
    if not all(type(one) is int and 0 <= one < MAX_TOKENS for one in ids):
        raise ValueError(f"it has an id that is not a number below {MAX_TOKENS:,}")
    if any(len(str(token)) > _MAX_TOKEN for token in (*vocabulary, *(token.get("content") for token in added))):
        raise ValueError(f"it has a token of more than {_MAX_TOKEN} characters")
