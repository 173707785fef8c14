"""Tables and captions that are damaged, or built to fill memory."""

import errno
import resource
from collections import Counter
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ingest import captions, raw
from ingest.corpus.documents import MAX_DOCUMENT_BYTES, documents
from ingest.filters import words_per_30s

CASES = Path(__file__).parent.parent / "fixtures" / "cases"


def read(path) -> tuple[list[str], dict[str, int]]:
    counts: Counter[str] = Counter()
    return list(documents(str(path), (), counts)), dict(counts)


@pytest.mark.parametrize("path", sorted((CASES / "damaged-parquet").iterdir()), ids=lambda path: path.name)
def test_a_damaged_table_is_counted(path):
    texts, counts = read(path)
    assert counts["damaged-file"] == 1
    assert len(texts) == counts.get("documents", 0)


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("packing", ["none", "snappy", "zstd"])
def test_texts_of_a_table(tmp_path, dictionary, packing):
    table = pyarrow.table({"text": ["one", "zwölf", None, "", "one"] * 50, "other": list(range(250))})
    parquet.write_table(table, tmp_path / "t.parquet", use_dictionary=dictionary, compression=packing, row_group_size=7)
    texts, counts = read(tmp_path / "t.parquet")
    assert texts == ["one", "zwölf", "one"] * 50
    assert counts == {"documents": 150, "no-text": 50, "empty": 50}


@pytest.mark.parametrize("values", [[1, 2], [b"a", b"b"], [["a"], []], [{"a": "x"}, None]])
def test_a_column_of_other_values_is_no_text(tmp_path, values):
    parquet.write_table(pyarrow.table({"text": values}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == ([], {"no-text": 2})


@pytest.mark.parametrize("dictionary", [True, False])
def test_long_texts_do_not_fill_memory(tmp_path, dictionary):
    """64 rows of them would be 1.3 GB."""
    long = ["x" * (MAX_DOCUMENT_BYTES + (4 << 20))] * 64
    table = pyarrow.table({"text": long})
    parquet.write_table(table, tmp_path / "t.parquet", use_dictionary=dictionary, compression="zstd")
    del table
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(tmp_path / "t.parquet") == ([], {"line-too-long": 64})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10


def test_a_storage_that_fails_is_not_damage(tmp_path):
    with pytest.raises(OSError) as raised:
        read(tmp_path / "absent.parquet")
    assert getattr(raised.value.__cause__, "errno", errno.ENOENT) == errno.ENOENT


@pytest.mark.parametrize("path", sorted((CASES / "captions-before-zero").iterdir()), ids=lambda path: path.name)
def test_words_before_zero_are_counted_with_the_first(path):
    words = captions.read(raw.decode_text(path.read_bytes()), "vtt").words
    assert sum(words_per_30s(words)) == len(words)
