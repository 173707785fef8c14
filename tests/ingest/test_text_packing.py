"""Corpora of text to packed sequences: the rule of packing, every form of file, and what is wrong with them."""

import gzip
import json
import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ingest.config import PILE_SUBSETS
from ingest.corpus.documents import MAX_DOCUMENT_BYTES, documents
from ingest.corpus.packing import WordEncoder, pack, packed_file
from ingest.text import clean_web_text
from shards.dataset.text_store import SEQUENCE_LENGTH
from shards.tokenizer import load_tokenizer, train_tokenizer
from shards.tokens import END, FIRST_TEXT_ID, SPECIAL_TOKENS, START


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["the quick brown fox jumps over the lazy dog", "don't stop 12 times"], 300)


def read(path, subsets=PILE_SUBSETS):
    counts = Counter()
    texts = list(documents(str(path), subsets, counts))
    return texts, {name: count for name, count in counts.items() if count}


def packed_by_the_rule(texts):
    """docs/spec/ingest.md 18, step by step."""
    sequences, running = [], []
    for ids in texts:
        running = [*running, START, *ids, END]
        while len(running) >= 1536:
            sequences.append(running[:1536])
            running = running[1536:]
        if len(running) <= 192:
            running = []
    return sequences


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4000), max_size=8))
def test_packing_follows_the_rule_and_counts_what_it_drops(lengths):
    texts = [list(np.arange(n) % 90 + FIRST_TEXT_ID) for n in lengths]
    counts = Counter()
    found = [sequence.tolist() for sequence in pack(texts, counts)]
    assert found == packed_by_the_rule(texts)
    assert counts["dropped-tokens"] + SEQUENCE_LENGTH * len(found) == sum(lengths) + 2 * len(lengths)


def test_words_apart_are_the_text_at_once(published_tokenizer):
    tokenizer = load_tokenizer(published_tokenizer)
    encode = WordEncoder(tokenizer)

    @settings(max_examples=300, deadline=None)
    @given(st.lists(st.one_of(st.text(max_size=20), st.sampled_from(["it's", "don't!", "$25.50", "café ️ x"]))))
    def check(parts):
        text = clean_web_text(" ".join(parts), spell_numbers=False)
        assert encode(text) == tokenizer.encode(text, add_special_tokens=False).ids

    check()


def test_every_form_of_file_holds_the_same_documents(tmp_path):
    texts = ["one two three", "caf\xe9 \u2014 four", "line\nbreak"]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    written = "\n\n".join(texts).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    # Two frames, as a parallel compressor writes them.
    halves = lines[:30], lines[30:]
    (tmp_path / "c.jsonl.zst").write_bytes(b"".join(map(zstandard.ZstdCompressor().compress, halves)))
    (tmp_path / "d.txt").write_bytes(written)
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(written))
    parquet.write_table(pa.table({"text": texts, "other": [1, 2, 3]}), tmp_path / "f.parquet")
    for path in sorted(tmp_path.iterdir()):
        found, counts = read(path)
        assert [text.strip() for text in found] == texts, path
        assert counts == {"documents": 3}


def test_bad_lines_cost_themselves_and_are_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    good = [json.dumps({"text": f"document {i}"}).encode() for i in range(4)]
    bad = [
        b"{not json",
        b"[1, 2]",
        b'{"text": 7}',
        b'{"text": "  "}',
        b'{"text": "github", "meta": {"pile_set_name": "Github"}}',
        b'{"text": "wiki", "meta": {"pile_set_name": "Wikipedia (en)"}}',
        b'{"text": "broken \xff\xfe bytes"}',
        b'{"text": "half \\ud83d pair"}',
        b"[" * 100_000,
        b"",
    ]
    path.write_bytes(b"\n".join([good[0], *bad[:4], good[1], *bad[4:8], good[2], *bad[8:], good[3]]))
    found, counts = read(path)
    assert [text for text in found if text.startswith("document")] == [f"document {i}" for i in range(4)]
    assert [text for text in found if not text.startswith("document")] == ["wiki", "broken  bytes", "half  pair"]
    assert counts == {
        "documents": 7,
        "bad-json": 2,
        "no-text": 2,
        "empty": 1,
        "other-subset": 1,
        "invalid-utf8": 2,
    }
    assert "github" in read(path, {"Github"})[0]


def test_a_huge_line_is_passed_over_in_bounded_memory(tmp_path):
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        # A gigabyte of a hole in the file: as long a line, and no such disk.
        file.seek(1 << 30, 1)
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    try:
        found, counts = read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == ["before", "after"]
    assert counts == {"documents": 2, "line-too-long": 1}
    assert peak < 4 * MAX_DOCUMENT_BYTES


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "bits.jsonl.zst", "none.jsonl.gz", "page.parquet", "other.parquet"])
def test_damaged_files_keep_what_was_read(tmp_path, name):
    lines = "".join(json.dumps({"text": f"{i} words {'x' * 50}"}) + "\n" for i in range(20_000)).encode()
    path = tmp_path / name
    if name == "cut.jsonl.gz":
        path.write_bytes(gzip.compress(lines)[:40_000])
    elif name == "bits.jsonl.zst":
        data = bytearray(zstandard.ZstdCompressor().compress(lines))
        data[len(data) // 2] ^= 0xFF
        data[len(data) // 2 + 1] ^= 0xFF
        path.write_bytes(data)
    elif name == "other.parquet":
        parquet.write_table(pa.table({"body": ["a", "b"]}), path)
    else:
        path.write_bytes(b"this is neither")
    found, counts = read(path)
    assert counts.get("damaged-file", 0) + counts.get("no-text", 0) + counts.get("bad-json", 0) > 0
    assert len(found) == counts.get("documents", 0) < 20_000
    if name == "cut.jsonl.gz":
        assert len(found) > 1000


def test_special_spellings_never_become_special_tokens(tmp_path, tokenizer):
    path = tmp_path / "special.jsonl"
    text = " ".join([*SPECIAL_TOKENS, "the quick brown fox <|PAD|> <|MASK|>"] * 400)
    path.write_text(json.dumps({"text": text}))
    counts = Counter()
    sequences = list(packed_file(str(path), "special/0", tokenizer, 0, PILE_SUBSETS, counts))
    assert counts["special-spelling"] == 1
    assert len(sequences) == counts["sequences"] > 2
    ids = np.concatenate(sequences)
    assert np.count_nonzero(ids < FIRST_TEXT_ID) == 1
    assert ids[0] == START


def test_half_of_the_documents_have_their_numbers_spelled(tmp_path, tokenizer):
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(json.dumps({"text": "12 " * 1600}) + "\n" for _ in range(200)))
    counts = Counter()
    first = list(packed_file(str(path), "numbers/0", tokenizer, 3, PILE_SUBSETS, counts))
    again = list(packed_file(str(path), "numbers/0", tokenizer, 3, PILE_SUBSETS, Counter()))
    assert np.array_equal(first, again)
    digits = tokenizer.encode("12").ids[-1]
    written = np.split(np.concatenate(first), np.flatnonzero(np.concatenate(first) == START))[1:]
    assert len(written) > 150
    assert 0.4 < np.mean([digits not in ids for ids in written]) < 0.6
