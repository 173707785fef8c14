"""Targets of the fuzz test beside the data: checkpoints, vocabularies, torch files, tables, configs, states, requests."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import httpx
import msgpack
import numpy as np
import pyarrow
from mutations import damage, damage_json
from pyarrow import parquet

from ingest.corpus.documents import documents
from model import checkpoint_values
from model.checkpoint_values import ValuesError
from model.checkpoints import CheckpointError, WeightsNotFiniteError, config_of, decode
from model.config import TINY, ConfigError
from model.filters import torch_file
from model.filters.torch_file import TorchFileError
from model.pretrained import Pretrained
from pipelines.inference import options as ask_options
from pipelines.inference import page
from pipelines.preprocessing import folder_config, status_report
from shards.reader import ReaderError, _parse_state
from shards.storage import stored_config
from shards.storage.errors import UserError
from shards.tokenizer import TokenizerError, encode_words, parse, train_tokenizer
from shards.tokenizer_file import MAX_TOKENS

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = Path(__file__).parent.parent / "fixtures" / "cases"


def check_torch(data: bytes) -> None:
    """A file gives arrays of the sizes of their storages, or `TorchFileError`."""
    with contextlib.suppress(TorchFileError):
        _touch(torch_file.loads(data), 64)


def _touch(value: object, levels: int) -> None:
    """Read every number of a value."""
    if isinstance(value, np.ndarray):
        value.tobytes()
    elif isinstance(value, dict) and levels:
        for inner in list(value.values())[:100]:
            _touch(inner, levels - 1)


@cache
def torch_seeds() -> list[bytes]:
    """Both forms of files that torch wrote."""
    return [(GOLDEN / "mobilenet" / f"small_{form}.pth.tar").read_bytes() for form in ("zip", "legacy")]


@cache
def checkpoint_seeds() -> list[bytes]:
    """A tree like that of a model, and its parts."""

    def array(shape: tuple[int, ...], name: str = "float16") -> msgpack.ExtType:
        content = np.zeros(shape, "uint16" if name == "bfloat16" else name).tobytes()
        return msgpack.ExtType(1, msgpack.packb((shape, name, content)))

    layer = {"attention_layer": {"qkv": {"kernel": array((8, 3, 1, 8))}}}
    params = {
        "token_encoder": {"Embed_0": {"embedding": array((16, 8))}},
        "joint_transformer": {"layer_00": layer, "layer_01": layer},
        "vision_encoder": {"embedding": {"kernel": array((12, 8))}, "transformer": {"layer_00": layer}},
        "other": {"a": array((2, 2), "bfloat16"), "b": array((), "float32"), "c": array((0, 3), "float64")},
    }
    return [msgpack.packb({"step": 3, "params": params, "opt_state": None})]


def check_checkpoint(data: bytes) -> None:
    """Bytes give arrays in dictionaries whose sizes are read off, or a typed error."""
    with contextlib.suppress(ValuesError):
        checkpoint_values.loads(data)
    try:
        params = decode(data, "the file")
        config_of(params, "the file", (4, 4), None)
    except (CheckpointError, ConfigError, WeightsNotFiniteError):
        return
    assert all(leaf.dtype == np.float32 for leaf in _leaves(params))


def _leaves(tree: dict) -> list[np.ndarray]:
    return [leaf for value in tree.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]


@cache
def tokenizer_seeds() -> list[bytes]:
    """A vocabulary of few words."""
    values = json.loads(train_tokenizer(["hello there hello", "Ünïcode too"], 300).to_str())
    padding = {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|PAD|>"}
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    return [json.dumps(v).encode() for v in (values, values | {"padding": padding, "truncation": cut})]


def check_tokenizer(data: bytes) -> None:
    """A vocabulary encodes every text into ids that it has, or `TokenizerError`."""
    try:
        tokenizer = parse(data, "the file")
        encoded = encode_words(tokenizer, ["hello there", "Ü \U0001f355", "", "a" * 300])
    except TokenizerError:
        return
    assert all(0 <= one < MAX_TOKENS for ids in encoded for one in ids)
    assert sum(map(len, encoded)) < 5000


@cache
def parquet_seeds() -> list[bytes]:
    """Tables of texts, packed in several ways."""
    tables = []
    for packing, dictionary in (("none", True), ("snappy", False), ("zstd", True)):
        buffer = io.BytesIO()
        table = pyarrow.table({"text": ["one", "zwölf", None, ""] * 5, "n": list(range(20))})
        parquet.write_table(table, buffer, compression=packing, use_dictionary=dictionary, row_group_size=8)
        tables.append(buffer.getvalue())
    return tables + [path.read_bytes() for path in sorted((CASES / "damaged-parquet").iterdir())]


def check_parquet(data: bytes) -> None:
    """A table gives texts and counts."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        Path(file.name).write_bytes(data)
        for text in documents(file.name, (), Counter()):
            text.encode()


@cache
def folder_seeds() -> list[bytes]:
    """The config of a data folder, and the note of a job's start."""
    config = (CASES / "config-names-a-module" / "config.json").read_bytes()
    return [b"c" + config, b"n" + json.dumps({"started": 1.5e9, "retry": "python -m pipelines.preprocess"}).encode()]


def damage_named(data: bytes, rng) -> bytes:
    """A JSON document behind one byte that names it."""
    return data[:1] + damage_json(data[1:], rng)


def check_folder(data: bytes) -> None:
    """The files of a folder give values of their types, or `UserError`."""
    with tempfile.TemporaryDirectory() as folder:
        name = stored_config.CONFIG_NAME if data[:1] == b"c" else status_report.NOTE
        (Path(folder) / name).write_bytes(data[1:])
        with contextlib.suppress(UserError):
            if name == status_report.NOTE:
                status_report.report(folder, 2e9)
                return
            config = folder_config.read(folder)
            folder_config.embedder(config.embedder, None)
            assert all(n is None or math.isfinite(n) for n in config.groups.values())


def state_seeds() -> list[bytes]:
    """The state of a reader of two data sets."""
    return [json.dumps({"seed": 3, "position": 64, "positions": [40, 24], "data": ["a" * 64, "b" * 64]}).encode()]


def check_state(data: bytes) -> None:
    """A state gives integers, or `ReaderError`."""
    try:
        state = json.loads(data)
    except (ValueError, RecursionError):
        return
    with contextlib.suppress(ReaderError):
        _, position, positions, _ = _parse_state(state)
        assert all(type(number) is int and number >= 0 for number in (position, *positions))


def request_seeds() -> list[bytes]:
    """Bodies of both kinds of requests."""
    asked = {"id": "x", "prompt": "a <|MASK|>", "options": ["a", "b"]}
    return [b"a" + json.dumps(asked).encode(), b"v" + json.dumps({"source": "no id"}).encode()]


@cache
def _post() -> Callable[[str, bytes], httpx.Response]:
    import asyncio

    application = page.make_app(Pretrained({}, TINY), ask_options.App())
    loop = asyncio.new_event_loop()

    async def send(path: str, body: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            headers = {"X-Reservoir": "1", "Content-Type": "application/json"}
            return await client.post(path, content=body, headers=headers)

    return lambda path, body: loop.run_until_complete(send(path, body))


def check_request(data: bytes) -> None:
    """A request is answered with a status from 400 to 499 and one sentence."""
    answer = _post()("/ask" if data[:1] == b"a" else "/video", data[1:])
    assert 400 <= answer.status_code < 500, answer.text
    assert "\n" not in answer.json()["error"]


KINDS = {
    "torch": (torch_seeds, damage, check_torch),
    "checkpoints": (checkpoint_seeds, damage, check_checkpoint),
    "tokenizers": (tokenizer_seeds, damage_json, check_tokenizer),
    "parquet": (parquet_seeds, damage, check_parquet),
    "folders": (folder_seeds, damage_named, check_folder),
    "states": (state_seeds, damage_json, check_state),
    "requests": (request_seeds, damage_named, check_request),
}
