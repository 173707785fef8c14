"""Vocabularies that would fill memory, never end or end the process, and settings that change what a text means."""

import json
import resource
import time

import pytest

from shards.tokenizer import TokenizerError, encode_words, load_tokenizer, train_tokenizer

TEXTS = ["hello there hello", "Ünïcode too"]


@pytest.fixture(scope="module")
def values():
    return json.loads(train_tokenizer(TEXTS, 300).to_str())


def changed(values, parts):
    """`values` with other parts; where both are objects, with other values in the part."""
    return values | {k: {**values[k], **v} if values[k] and isinstance(v, dict) else v for k, v in parts.items()}


PAD = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|PAD|>"}
CUT = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}


def test_padding_and_truncation_of_a_file_do_not_count(values, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**values, "padding": {"strategy": {"Fixed": 40}, **PAD}, "truncation": CUT}))
    words = ["hello", "there", "x" * 50]
    assert encode_words(load_tokenizer(path), words) == encode_words(train_tokenizer(TEXTS, 300), words)


@pytest.mark.parametrize(
    "parts",
    [
        {"padding": {"strategy": {"Fixed": 1 << 60}, **PAD}},
        {"padding": {"strategy": "BatchLongest", **PAD, "pad_to_multiple_of": 1 << 60}},
        {"truncation": {**CUT, "max_length": 1 << 62}},
        {"padding": 5},
        {"model": {"dropout": 0.5}},
        {"model": {"type": "Unigram"}},
        {"model": {"unk_token": "x" * 10_000}},
        {"model": {"vocab": {"<|PAD|>": 1 << 40}}},
        {"model": {"vocab": {"x" * 5000: 0}}},
        {"model": {"vocab": [["a", 0.5]]}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
        {"normalizer": {"type": "Prepend", "prepend": "x" * 100_000}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Sequence", "pretokenizers": [{"type": "Digits"}]}],
            }
        },
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}] * 1000}},
        {"decoder": {"type": "Strip", "content": "a", "start": 1 << 60, "stop": 0}},
    ],
)
def test_settings_that_are_refused(values, tmp_path, parts):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(changed(values, parts)))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(TokenizerError, match="is not a tokenizer file") as raised:
        load_tokenizer(path)
    assert len(str(raised.value)) < 400 + len(str(path))
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff", b"null", b'{"model": []}'])
def test_bytes_that_are_no_vocabulary(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="is not a tokenizer file"):
        load_tokenizer(path)


def test_a_file_of_gigabytes_is_not_read(tmp_path):
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(TokenizerError, match="bytes"):
        load_tokenizer(path)
