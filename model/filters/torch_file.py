"""Weights out of files that `torch.save` wrote, without torch and without running what a pickle asks for.

Only tensors, numbers, texts and containers are rebuilt; anything else that a file names becomes an inert object. Every
size in a file is checked before memory is allocated for it.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model.filters import pickled_values
from model.filters.pickled_values import Global, Inert, PickleError

MAX_FILE_BYTES = 1 << 30
"""A larger file is refused, and so is one whose storages are larger in sum; the published filter has 14 MB."""

_MAX_PICKLE_BYTES = 16 << 20
_MAX_DIMENSIONS = 32
_TYPES = {
    "torch.FloatStorage": np.float32,
    "torch.DoubleStorage": np.float64,
    "torch.HalfStorage": np.float16,
    "torch.LongStorage": np.int64,
    "torch.IntStorage": np.int32,
    "torch.ByteStorage": np.uint8,
    "torch.BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

Storages = Callable[[type, str, int], np.ndarray]
"""The storage of (dtype, key, number of values)."""


class TorchFileError(ValueError):
    """A file does not hold what `torch.save` writes; the message says what is wrong with it."""


def load(path: str | Path) -> Any:
    """Return what was saved, tensors as NumPy arrays. Raises `TorchFileError`."""
    try:
        size = Path(path).stat().st_size
        if size > MAX_FILE_BYTES:
            raise TorchFileError(f"{path} has {size:,} bytes; a file of weights has at most {MAX_FILE_BYTES:,}")
        return loads(Path(path).read_bytes())
    except TorchFileError as error:
        raise TorchFileError(f"{path} is not a file of weights: {error}") from None
    except OSError as error:
        raise TorchFileError(f"{path} cannot be read: {error.strerror}") from None


def loads(data: bytes) -> Any:
    """Return what the bytes of a file hold. Raises `TorchFileError`."""
    try:
        file = io.BytesIO(data)
        return _load_zip(file) if zipfile.is_zipfile(file) else _load_legacy(io.BytesIO(data), len(data))
    except (TorchFileError, PickleError) as error:
        raise TorchFileError(str(error)) from None
    # A damaged archive can raise anything.
    except Exception as error:  # noqa: BLE001
        reason = " ".join(str(error).split())[:120]
        raise TorchFileError(f"{type(error).__name__}: {reason}") from None


def _load_zip(file: io.BytesIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        (pickled,) = (name for name in members if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = members.get(f"{folder}byteorder")
        if order is not None and _read(archive, order, 16) != b"little":
            raise TorchFileError("it was written on a big-endian machine")
        storages: dict[str, np.ndarray] = {}

        def storage(kind: type, key: str, count: int) -> np.ndarray:
            if key not in storages:
                remaining = MAX_FILE_BYTES - sum(array.nbytes for array in storages.values())
                content = _read(archive, members[f"{folder}data/{key}"], remaining)
                if len(content) != count * np.dtype(kind).itemsize:
                    raise TorchFileError(f"storage {key} has {len(content)} bytes instead of those of {count} numbers")
                storages[key] = np.frombuffer(content, kind)
            return storages[key]

        return _unpickle(io.BytesIO(_read(archive, members[pickled], _MAX_PICKLE_BYTES)), storage)


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    """Return the content of a member, of which the archive's directory states the size that is read at most."""
    if member.file_size > most:
        raise TorchFileError(f"its part {member.filename[:80]!r} has {member.file_size:,} bytes; {most:,} are allowed")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise TorchFileError(f"its part {member.filename[:80]!r} is packed in a way that torch does not use")
    with archive.open(member) as content:
        return content.read(member.file_size)


def _load_legacy(file: io.BytesIO, size: int) -> Any:
    """Magic number, version, machine, the object, then the keys of the storages and their contents in that order."""
    if _unpickle(file, None) != _LEGACY_MAGIC:
        raise TorchFileError("it starts otherwise")
    for _ in ("version", "machine"):
        _unpickle(file, None)
    storages: dict[str, np.ndarray] = {}

    def storage(kind: type, key: str, count: int) -> np.ndarray:
        # The contents come after the object: it is built on arrays that are filled afterwards.
        if key not in storages:
            needed = count * np.dtype(kind).itemsize + sum(array.nbytes for array in storages.values())
            if needed > size - file.tell():
                raise TorchFileError("it is cut short")
            storages[key] = np.zeros(count, kind)
        return storages[key]

    value = _unpickle(file, storage)
    for key in _unpickle(file, None):
        (count,) = struct.unpack("<q", file.read(8))
        content = storages[key]
        if count != content.size:
            raise TorchFileError(f"it is damaged: a storage of {content.size} numbers states {count}")
        content[:] = np.frombuffer(file.read(content.nbytes), content.dtype)
    return value


def _unpickle(file: io.BytesIO, storages: Storages | None) -> Any:
    def persistent(pid: Any) -> np.ndarray:
        _, kind, key, _, count = pid[:5]
        if storages is None or not isinstance(kind, Global) or kind not in _TYPES:
            raise TorchFileError("it has a storage of a type that is not known")
        if not isinstance(key, str) or not _is_size(count):
            raise TorchFileError(f"it has a storage of {str(count)[:40] if isinstance(count, int) else '?'} numbers")
        return storages(_TYPES[kind], key, count)

    return pickled_values.load(file, _call, persistent)


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    if name == "collections.OrderedDict":
        # Python 2 wrote the items as pairs, later ones set them afterwards.
        pairs = arguments[0] if arguments else []
        return {key: value for key, value in pairs if isinstance(key, str)}
    if name == "torch._utils._rebuild_tensor_v2":
        return _rebuild(*arguments[:4])
    return Inert()


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_FILE_BYTES


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any) -> np.ndarray:
    """Return a tensor, as a view of its storage. All sizes are Python's integers, which do not wrap."""
    if not isinstance(storage, np.ndarray) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TorchFileError("it has a tensor without storage, shape or strides")
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise TorchFileError(f"it has a tensor of {len(shape)} dimensions and {len(strides)} strides")
    if not all(map(_is_size, (offset, *shape, *strides))):
        raise TorchFileError("a tensor lies outside its storage")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if 0 not in shape and (last >= storage.size or math.prod(shape) > storage.size):
        raise TorchFileError("a tensor lies outside its storage")
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    steps = [step * storage.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
