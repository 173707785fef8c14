"""Weights out of files that `torch.save` wrote, without torch and without running what a pickle asks for.

Only tensors, numbers, texts and containers are rebuilt; anything else that a file names becomes an inert object.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_TYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class TorchFileError(ValueError):
    """A file does not hold what `torch.save` writes; the message says what is wrong with it."""


def load(path: str | Path) -> Any:
    """What was saved, tensors as NumPy arrays. Raises `TorchFileError`."""
    try:
        with Path(path).open("rb") as file:
            if zipfile.is_zipfile(file):
                return _load_zip(file)
            file.seek(0)
            return _load_legacy(file)
    except TorchFileError:
        raise
    # A damaged archive or pickle can raise anything.
    except Exception as error:  # noqa: BLE001
        said = " ".join(str(error).split())[:120]
        raise TorchFileError(f"{path} is not a file of weights: {type(error).__name__}: {said}") from None


def _load_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise TorchFileError(f"{file.name} was written on a big-endian machine")

        def storage(kind: type, key: str, count: int) -> np.ndarray:
            return np.frombuffer(archive.read(f"{folder}data/{key}"), kind, count)

        return _Unpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _load_legacy(file: BinaryIO) -> Any:
    """Magic number, version, machine, the object, then the keys of the storages and their contents in that order."""
    if _Unpickler(file, None).load() != _LEGACY_MAGIC:
        raise TorchFileError(f"{file.name} is not a file of weights: it starts otherwise")
    for _ in ("version", "machine"):
        _Unpickler(file, None).load()
    storages: dict[str, np.ndarray] = {}

    def storage(kind: type, key: str, count: int) -> np.ndarray:
        # The contents come after the object: it is built on arrays that are filled afterwards.
        left = Path(file.name).stat().st_size - file.tell()
        if not 0 <= count * np.dtype(kind).itemsize <= left:
            raise TorchFileError(f"{file.name} is cut short")
        return storages.setdefault(key, np.zeros(count, kind))

    held = _Unpickler(file, storage).load()
    for key in _Unpickler(file, None).load():
        (count,) = struct.unpack("<q", file.read(8))
        content = storages[key]
        if count != content.size:
            raise TorchFileError(f"{file.name} is damaged: a storage of {content.size} numbers says it has {count}")
        content[:] = np.frombuffer(file.read(content.nbytes), content.dtype)
    return held


class _Inert:
    """Stands for whatever is not needed."""

    def __init__(self, *arguments: Any, **named: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storage: Any):
        super().__init__(file)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        return _Inert

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, kind, key, _, count = pid[:5]
        if self.storage is None or not (isinstance(kind, type) and issubclass(kind, np.generic)):
            raise TorchFileError("the file holds a storage of a type that is not known")
        return self.storage(kind, str(key), int(count))


def _rebuild(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: Any
) -> np.ndarray:
    del rest
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if shape else offset
    if min((*strides, offset, *shape), default=0) < 0 or (0 not in shape and last >= storage.size):
        raise TorchFileError("a tensor lies outside its storage")
    view = storage[offset:]
    return np.lib.stride_tricks.as_strided(view, shape, [step * storage.itemsize for step in strides], writeable=False)
