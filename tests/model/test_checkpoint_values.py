"""Checkpoints that state wrong sizes, or are built to fill memory or to never end."""

import json
import resource
import time

import msgpack
import numpy as np
import pytest
from flax import serialization

from model import checkpoint_values, published
from model.checkpoint_values import ValuesError
from model.checkpoints import CheckpointError, decode
from model.config import TINY, ConfigError


def array(shape, name, content, code=1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, name, content)))


def deep(levels: int) -> bytes:
    return b"\x81\xa1a" * levels + b"\xc0"


def test_arrays_of_every_type_are_those_of_flax():
    import ml_dtypes

    names = ["float16", "float32", "float64", "int8", "int64", "uint16", "bool", ml_dtypes.bfloat16]
    tree = {"a": {str(i): np.arange(6).reshape(2, 3).astype(name) for i, name in enumerate(names)}, "s": np.float32(2)}
    tree |= {"step": 3, "none": None, "text": "ü", "empty": np.zeros((0, 4), np.float32)}
    data = serialization.msgpack_serialize(tree)
    ours, theirs = checkpoint_values.loads(data), serialization.msgpack_restore(data)
    assert ours.keys() == theirs.keys()
    for name, value in theirs["a"].items():
        assert ours["a"][name].dtype == value.dtype
        assert np.array_equal(ours["a"][name], value)
    assert (ours["step"], ours["none"], ours["text"], ours["s"]) == (3, None, "ü", 2)
    assert ours["empty"].shape == (0, 4)


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb({"params": {"a": array((2**40,), "float32", bytes(8))}}),
        msgpack.packb({"params": {"a": array((2**32, 2**32), "float32", b"")}}),
        msgpack.packb({"params": {"a": array((-1, -2), "float32", bytes(8))}}),
        msgpack.packb({"params": {"a": array((2, True), "float32", bytes(8))}}),
        msgpack.packb({"params": {"a": array([[[2]]], "float32", bytes(8))}}),
        msgpack.packb({"params": {"a": array((1,) * 100, "float32", bytes(4))}}),
        msgpack.packb({"params": {"a": array((2,), "float32", [1, 2])}}),
        msgpack.packb({"params": {"a": array("2", "float32", bytes(8))}}),
        msgpack.packb({"params": {"a": msgpack.ExtType(5, b"x")}}),
        msgpack.packb({"params": {"a": msgpack.ExtType(1, b"\xdd\xff\xff\xff\xff")}}),
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\x00\xff\xff\xff" * 500 + bytes(20 << 20),
        b"\xdf\x00\x00\x07\xff" + (b"\xa1a" + b"\xdf\x00\x00\x07\xff") * 400,
        b"\xc6\xff\xff\xff\xff",
        deep(40),
        deep(900),
        deep(100_000),
        msgpack.packb({str(i): {str(j): 0 for j in range(2000)} for i in range(100)}),
        msgpack.packb({(1, 2): 3}),
    ],
)
def test_bytes_that_are_refused(data):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ValuesError) as raised:
        checkpoint_values.loads(data)
    assert len(str(raised.value)) < 300
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize(
    "name", ["O", "object", "complex64", "V8", "U4", "datetime64[s]", "f4,f4", "float32 ", b"f4", 3]
)
def test_types_that_are_not_numbers_are_no_parameters(name):
    data = msgpack.packb({"params": {"a": array((2,), name, bytes(8))}})
    with pytest.raises(CheckpointError, match="not an array of numbers"):
        decode(data, "the file")


def tiny_tree():
    embedding = {"Embed_0": {"embedding": np.zeros((256, 64), np.float16)}}
    layer = {"layer_00": {"attention_layer": {"qkv": {"kernel": np.zeros((64, 3, 2, 32), np.float16)}}}}
    vision = {"embedding": {"kernel": np.zeros((768, 64), np.float16)}, "transformer": {"layer_00": {}}}
    return {"token_encoder": embedding, "joint_transformer": layer, "vision_encoder": vision}


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(token_encoder=np.zeros(2)),
        lambda tree: tree["token_encoder"].update(Embed_0={"embedding": np.zeros((0, 0))}),
        lambda tree: tree["joint_transformer"].update(layer_00=np.zeros(2)),
        lambda tree: tree["joint_transformer"]["layer_00"]["attention_layer"].update(
            qkv={"kernel": {"x": np.zeros(1)}}
        ),
        lambda tree: tree["joint_transformer"]["layer_00"]["attention_layer"]["qkv"].update(kernel=np.zeros((64, 0))),
        lambda tree: tree["vision_encoder"].update(embedding={"kernel": np.zeros(())}),
        lambda tree: tree["vision_encoder"].update(embedding={"kernel": np.zeros((1, 64))}),
        lambda tree: tree.update(audio_encoder=np.zeros(2)),
        lambda tree: tree["joint_transformer"].update({f"layer_{i}": {"x": np.zeros(1)} for i in range(1000)}),
    ],
)
def test_trees_of_other_shapes_are_one_sentence(tmp_path, change):
    tree = tiny_tree()
    change(tree)
    path = tmp_path / "ckpt_1"
    path.write_bytes(serialization.msgpack_serialize({"params": tree}))
    started = time.process_time()
    with pytest.raises((CheckpointError, ConfigError)):
        published.load(str(path), grid=TINY.grid)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("grid", [[4], [4, "4"], [True, 4], [4, -4], [4, 10**9], [4.0, 4], None, {"rows": 4}])
def test_a_damaged_grid_beside_the_weights_is_one_sentence(tmp_path, grid):
    (tmp_path / "ckpt_1").write_bytes(b"")
    (tmp_path / "model.json").write_text(json.dumps({"grid": grid}))
    with pytest.raises(CheckpointError, match="is damaged"):
        published.load(str(tmp_path), grid=None)
