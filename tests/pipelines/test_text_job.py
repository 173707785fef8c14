"""Web text in the examples: mixed by weight, the same on any number of workers, continued and never failing short."""

import gzip
import json
import random
import shutil
from collections import Counter

import pytest

from pipelines.preprocessing import options
from shards.dataset import location as dataset
from shards.dataset import manifest
from shards.dataset.manifest import stats_path
from shards.inspection.stats import summarize
from shards.reader import PretrainingReader
from shards.reading.config import ReaderConfig, StreamOptions
from shards.records import tfrecord
from shards.records.pretraining import parse_example
from shards.storage import filesystem
from shards.storage.errors import UsageError
from tests.pipelines.test_preprocess import DETERMINISTIC, bytes_of

WORDS = [
    "the",
    "a",
    "of",
    "red",
    "blue",
    "shape",
    "moves",
    "while",
    "sound",
    "hums",
    "and",
    "another",
    "thing",
    "happens",
    "in",
    "12",
    "seconds",
]


def write_corpus(path, documents, seed, words=900):
    """JSON lines of random words; `path` decides the packing."""
    draw = random.Random(seed)
    lines = "".join(json.dumps({"text": " ".join(draw.choices(WORDS, k=words))}) + "\n" for _ in range(documents))
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder of two files, and a file that is soon used up."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "news").mkdir()
    write_corpus(folder / "news" / "a.jsonl", 30, 1)
    write_corpus(folder / "news" / "b.jsonl.gz", 30, 2)
    write_corpus(folder / "small.txt", 3, 3)
    (folder / "small.txt").write_text((folder / "small.txt").read_text().replace("\n", "\n\n"))
    return folder


def with_text(texts):
    return ["--text", f"{texts / 'news'}:3", f"{texts / 'small.txt'}:1", "--text-sequences", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory, run, corpus, settings, texts):
    out = tmp_path_factory.mktemp("data") / "out"
    arguments = ["--videos", corpus / "train", "--out", out, *settings, *with_text(texts), "--keep-segments"]
    ran = run.preprocess(*arguments, "--direct_num_workers=2")
    assert ran.status == 0, ran.err
    assert "text 'news': " in ran.err
    return out


def examples(data):
    for path in dataset.open_data(str(data)).shards:
        with filesystem.open_read(path) as file:
            for _, payload in tfrecord.scan(file, path):
                yield parse_example(payload)


def test_every_example_carries_its_texts_by_weight(data, run):
    held = list(examples(data))
    assert all([text.size for text in example.random_text] == [1536, 1536] for example in held)
    (generation,) = manifest.load(str(data)).generations
    assert generation.text.keys() == {"news", "small"}
    assert sum(generation.text.values()) == 2 * len(held)
    assert generation.text["news"] > generation.text["small"] > 2
    summary = summarize(dataset.open_data(str(data)))
    assert summary.histograms["text_sources"] == generation.text
    # The small source starts over: its sequences come again, as evenly as can be.
    used = Counter(text.tobytes() for example in held for text in example.random_text)
    assert max(used.values()) >= 2
    assert run("shards", "verify", data).status == 0
    assert run("shards", "card", data).status == 0
    assert "text (sequences)" in (data / "CARD.md").read_text()
    assert "text sequences from" in run("shards", "stats", data).out


def test_the_reader_masks_them(data):
    config = ReaderConfig(
        segments=4, groups=1, random_text_sequences=1, random_text_stored=2, stream=StreamOptions(split="train")
    )
    reader = PretrainingReader(str(data), config, batch_size=2, seed=0)
    assert (next(reader)["random_text"] > 0).any()


def taken(out):
    """The sequences of the source `news` that every generation took."""
    return [
        [
            number
            for shard in generation.shards
            for refs in json.loads((out / stats_path(shard.name)).read_text())["texts"]
            for _, number in refs
        ]
        for generation in manifest.load(str(out)).generations
    ]


def test_generations_take_texts_one_after_the_other(tmp_path, run, corpus, quick, texts):
    out = tmp_path / "out"
    command = ["--videos", corpus / "train", "--out", out, *quick, "--text", texts / "news"]
    for number in (1, 2):
        ran = run.preprocess(*command, "--slice", f"{number}/2")
        assert ran.status == 0, ran.err
    first, second = taken(out)
    assert len(first) > 1
    assert len(second) > 1
    assert sorted(first + second) == list(range(len(first + second)))
    assert not filesystem.list_files(str(out / "text" / "news"))


def test_one_worker_gives_the_same_bytes_as_two(data, tmp_path, run, corpus, settings, texts):
    elsewhere = tmp_path / "moved"
    shutil.copytree(texts, elsewhere)
    arguments = ["--videos", corpus / "train", "--out", tmp_path / "out", *settings, *with_text(elsewhere)]
    ran = run.preprocess(*arguments, "--direct_num_workers=1")
    assert ran.status == 0, ran.err
    assert bytes_of(tmp_path / "out", *DETERMINISTIC) == bytes_of(data, *DETERMINISTIC)
    assert not (tmp_path / "out" / "text").exists() or not list((tmp_path / "out" / "text").rglob("*.ids"))


def test_a_stopped_job_keeps_packed_text(data, tmp_path, run, corpus, quick, texts):
    out = tmp_path / "out"
    shutil.copytree(data, out)
    for path in [*out.glob("train-g*"), out / "manifest.json"]:
        path.unlink()
    kept = out / "text" / "news" / "000000.ids"
    before = kept.stat().st_mtime_ns
    (out / "text" / "small" / "000000.ids").unlink()
    ran = run.preprocess("--videos", corpus / "train", "--out", out, *quick, *with_text(texts), "--keep-segments")
    assert ran.status == 0, ran.err
    assert kept.stat().st_mtime_ns == before
    assert bytes_of(out, *DETERMINISTIC) == bytes_of(data, *DETERMINISTIC)


def test_a_damaged_shard_is_written_again_with_its_texts(data, tmp_path, run):
    out = tmp_path / "out"
    shutil.copytree(data, out)
    shard = sorted(out.glob("*.tfrecord"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-40])
    assert run("shards", "verify", out, "--repair").status == 0
    assert shard.read_bytes() == whole


def test_a_new_generation_goes_on_where_the_last_one_stopped(tmp_path, run, corpus, quick, texts):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    names = sorted({p.name.split(".")[0] for p in (corpus / "train").iterdir()})
    arguments = ["--videos", folder, "--out", out, *quick, "--text", texts / "news", "--keep-segments"]
    for some in (names[:2], names[2:4]):
        for path in (p for name in some for p in (corpus / "train").glob(f"{name}.*")):
            shutil.copy(path, folder / path.name)
        assert run.preprocess(*arguments).status == 0
    first, second = manifest.load(str(out)).generations
    total = first.text["news"] + second.text["news"]
    taken = [
        ref
        for path in sorted(out.glob("*of*.stats.json"))
        for refs in json.loads(path.read_text())["texts"]
        for ref in refs
    ]
    held = sum(p.stat().st_size for p in (out / "text").rglob("*.ids")) // (4 * 1536)
    assert total <= held
    assert sorted(number for _, number in taken) == list(range(total))


def test_without_text_there_is_none(tmp_path, run, corpus, quick, data, texts):
    ran = run.preprocess("--videos", corpus / "train", "--out", data, *quick)
    assert ran.status == 2
    assert "belongs to a run with text." in ran.err
    ran = run.preprocess("--videos", corpus / "train", "--out", tmp_path / "out", *quick, "--limit", "2")
    assert ran.status == 0
    assert not any(example.random_text for example in examples(tmp_path / "out"))
    assert manifest.load(str(tmp_path / "out")).generations[0].text == {}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("empty.jsonl", "fills no sequence of 1536 tokens: 0 sequences of 0 documents; 1 bad-json, 1 empty"),
        ("a.pdf", "contains no text files"),
    ],
)
def test_bad_corpora_are_one_sentence(tmp_path, run, corpus, quick, given, sentence):
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n{oops\n')
    (tmp_path / "a.pdf").write_text("no text")
    arguments = ["--videos", corpus / "validation", "--out", tmp_path / "out", *quick, "--text", tmp_path / given]
    ran = run.preprocess(*arguments)
    assert ran.status == 1, ran.err
    assert sentence in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--text", "a.jsonl:0"], "must be PATH or PATH:WEIGHT with a positive weight"),
        (["--text", "here/a.jsonl", "there/a.txt"], "two of --text are named 'a'"),
        (["--text", "a.jsonl", "--text-sequences", "0"], "must be from 1 to 16"),
        (["--text", "absent.jsonl"], "there is no text 'absent.jsonl'"),
    ],
)
def test_bad_flags_are_refused(flags, sentence):
    with pytest.raises(UsageError, match=sentence):
        options.parse(["--videos", "v", "--out", "o", *flags])[0].text.check_paths()
