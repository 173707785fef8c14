"""Files of torch that state wrong sizes, or are built to fill memory, to never end, or to run code."""

import pickle
import resource
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from model.filters import pickled_values, torch_file
from model.filters.torch_file import TorchFileError

CASES = Path(__file__).parent.parent / "fixtures" / "cases" / "torch-strides-that-wrap"


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def integer(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(count: int, key: str = "0", kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(count) + b"tQ"


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, count: int = 16) -> bytes:
    """A pickle of one tensor."""
    parts = storage(count) + integer(offset) + numbers(*shape) + numbers(*strides) + b"\x89}"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tR."


def write(path: Path, pickled: bytes, contents: dict[str, bytes] | None = None, packed: int = zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in ({"0": bytes(64)} if contents is None else contents).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def refusal(path: Path) -> str:
    """The sentence of a refusal, which comes in two seconds and little memory."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(TorchFileError) as raised:
        torch_file.load(path)
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", ["oob_far.pth", "oob_near.pth"])
def test_strides_that_wrap_to_inside_are_outside(name):
    assert "is not a file of weights" in refusal(CASES / name)


def test_a_view_inside_its_storage_is_read(tmp_path):
    values = np.arange(16, dtype=np.float32)
    path = write(tmp_path / "w.pth", tensor((2, 3), (1, 4), 3), {"0": values.tobytes()})
    assert torch_file.load(path).tolist() == [[3, 7, 11], [4, 8, 12]]


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((17,), (1,), 0),
        ((17,), (2**60,), 0),
        ((3,), (2**63,), 0),
        ((5,), (2**62 - 1,), 2**62),
        ((100_000, 3), (1, 2**62 + 2**61), 0),
        ((4,), (1,), 13),
        ((4,), (1,), -1),
        ((4,), (-1,), 8),
        ((-4,), (1,), 0),
        ((2**40,), (0,), 0),
        ((2,) * 33, (0,) * 33, 0),
        ((4,), (1, 1), 0),
        ((2**90,), (1,), 0),
        ((2**29, 0), (1, 1), 2**64),
    ],
)
def test_tensors_outside_their_storage(tmp_path, shape, strides, offset):
    refusal(write(tmp_path / "w.pth", tensor(shape, strides, offset)))


@pytest.mark.parametrize("count", [0, 15, 17, 2**31, 2**62, 2**70, -1])
def test_storages_of_another_size_than_stated(tmp_path, count):
    refusal(write(tmp_path / "w.pth", tensor((4,), (1,), 0, count)))


def test_members_larger_than_allowed(tmp_path):
    bomb = bytes(torch_file.MAX_FILE_BYTES // 32)
    assert "are allowed" in refusal(write(tmp_path / "w.pth", b"\x80\x02B" + len(bomb).to_bytes(4, "little") + bomb))


def test_other_packings_are_refused(tmp_path):
    assert "packed in a way" in refusal(write(tmp_path / "w.pth", tensor((4,), (1,)), packed=zipfile.ZIP_LZMA))


def shared_tuples(levels: int) -> bytes:
    """A tuple that is there twice in one that is there twice, and so on."""
    return b")" + b"2\x86" * levels


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}" + b"(" * 300_000 + b"t" * 300_000 + b"K\x01s.",
        b"\x80\x02}" + b")" + b"\x85" * 600_000 + b"K\x01s.",
        b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",
        b"\x80\x02" + b"]" * 2_000_000 + b".",
        b"\x80\x02Nr\xff\xff\xff\xffN.",
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
        b"\x80\x02\x8b" + (1 << 20).to_bytes(4, "little") + b"\x01" * (1 << 20) + b".",
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02cos\nsystem\n" + text("false") + b"\x85R.}",
        b"\x80\x02" + shared_tuples(64) + b".",
        b"\x80\x02(K\x01",
        b"\x80\x02t.",
        b"",
    ],
)
def test_pickles_built_to_harm_end_soon(tmp_path, pickled):
    path = write(tmp_path / "w.pth", pickled)
    started = time.process_time()
    try:
        torch_file.load(path)
    except TorchFileError:
        pass
    else:
        assert pickled.startswith((b"\x80\x02Nr", b"\x80\x02cos"))
    assert time.process_time() - started < 5


def test_what_a_file_names_is_not_called(tmp_path):
    harm = tmp_path / "harm"
    pickled = b"\x80\x02cbuiltins\nopen\n" + text(str(harm)) + text("w") + b"\x86R."
    assert isinstance(torch_file.load(write(tmp_path / "w.pth", pickled)), pickled_values.Inert)
    assert not harm.exists()


def test_containers_are_what_python_makes_of_them():
    import io

    value = {"a": [1, 2.5, "ü", b"x", None, True, (1, 2), (), [], {}], "b": (1, (2, (3, 4, 5, 6))), "c": -(2**40)}
    for protocol in range(3, 6):
        file = io.BytesIO(pickle.dumps(value, protocol) + b"rest")
        assert pickled_values.load(file, lambda *call: call, lambda pid: pid) == value
        assert file.read() == b"rest"
