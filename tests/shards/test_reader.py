import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.arrays.resampling import METHODS, taps
from shards.dataset import manifest
from shards.dataset.manifest import index_path, shard_name
from shards.reader import PretrainingReader, Reader, ReaderConfig, ReaderError, StreamOptions, examples
from shards.reading.source import ShardError
from shards.reading.vocabulary import VocabularyError
from shards.records import tfrecord
from shards.storage.errors import UsageError
from shards.storage.filesystem import StorageError
from tests.reader_data import write_data

SMALL = ReaderConfig(
    segments=4, groups=2, grid=(2, 3), random_text_sequences=0, text_length=40, sequence_length=96, encode_meta=True
)
VALIDATION = replace(SMALL, stream=StreamOptions(training=False))


@pytest.fixture(scope="module")
def small_data(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("reader") / "small", [5, 3, 6])


def ids(batch):
    return ["".join(map(chr, row)) for row in batch["youtube_id"]]


def take(reader, count):
    return list(itertools.islice(reader, count))


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_importing_the_reader_does_not_import_tensorflow():
    code = "import sys, shards.reader, shards.arrays.images, shards.arrays.audio; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_stream_continues_exactly_after_every_state(small_data):
    reader = PretrainingReader(small_data, SMALL, 3, seed=1)
    states, batches = [reader.state()], []
    for _ in range(10):
        batches.append(next(reader))
        states.append(reader.state())
    assert json.loads(json.dumps(states)) == states
    for step in range(9):
        other = PretrainingReader(small_data, SMALL, 3, seed=1)
        other.restore(states[step])
        assert_equal(take(other, 10 - step), batches[step:])
    reader.restore(states[4])
    assert_equal(take(reader, 2), batches[4:6])


def test_batches_take_configurations_in_turn(small_data):
    grids = [replace(SMALL, grid=grid) for grid in ((2, 3), (3, 2), (4, 4))]
    alone = [take(PretrainingReader(small_data, one, 3, seed=1), 7) for one in grids]
    reader = PretrainingReader(small_data, grids, 3, seed=1)
    batches = take(reader, 4)
    state = json.loads(json.dumps(reader.state()))
    again = PretrainingReader(small_data, grids, 3, seed=1)
    again.restore(state)
    batches += take(again, 3)
    assert_equal(batches, [alone[i % 3][i] for i in range(7)])


def test_any_number_of_hosts_reads_every_record_once_an_epoch(small_data):
    first = PretrainingReader(small_data, SMALL, 2, seed=4)
    seen = [name for batch in take(first, 3) for name in ids(batch)]
    state = first.state()
    for hosts in (2, 4):
        readers = [PretrainingReader(small_data, SMALL, 1, 4, host, hosts) for host in range(hosts)]
        for reader in readers:
            reader.restore(state)
        for _ in range(4 if hosts == 2 else 7):
            for reader in readers:
                seen += ids(next(reader))
        assert len({json.dumps(reader.state()) for reader in readers}) == 1
        state = readers[0].state()
    assert state["position"] == len(seen) == 42
    for epoch in range(3):
        assert len(set(seen[epoch * 14 : epoch * 14 + 14])) == 14
    assert seen[:14] != seen[14:28]


def test_batches_do_not_depend_on_threads_or_hosts(small_data):
    one = replace(SMALL, stream=StreamOptions(threads=1))
    many = replace(SMALL, stream=StreamOptions(threads=4))
    whole = take(PretrainingReader(small_data, one, 4, seed=2), 5)
    assert_equal(take(PretrainingReader(small_data, many, 4, seed=2), 5), whole)
    parts = [take(PretrainingReader(small_data, many, 2, 2, host, 2), 5) for host in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts, strict=True)]
    assert_equal(joined, whole)


def test_epochs_differ_and_seeds_differ(small_data):
    def first_epoch(seed, epoch):
        reader = PretrainingReader(small_data, SMALL, 14, seed)
        batch = take(reader, epoch + 1)[epoch]
        return dict(zip(ids(batch), batch["audio_clips"], strict=True)), ids(batch)

    (sounds, order), (later, later_order), (other, _) = first_epoch(1, 0), first_epoch(1, 1), first_epoch(2, 0)
    assert order != later_order
    name = order[0]
    assert (sounds[name] != later[name]).any()
    assert (sounds[name] != other[name]).any()


def test_validation_is_one_pass_the_same_every_time(small_data):
    first = list(PretrainingReader(small_data, VALIDATION, 4, seed=9))
    assert [len(batch["images"]) for batch in first] == [4, 4, 4, 2]
    assert [name for batch in first for name in ids(batch)] == [
        f"{f'0s{s}e{e}':_<9}00" for s, n in enumerate((5, 3, 6)) for e in range(n)
    ]
    assert_equal(list(PretrainingReader(small_data, VALIDATION, 4, seed=9)), first)
    halves = [list(PretrainingReader(small_data, VALIDATION, 4, 9, host, 2)) for host in range(2)]
    assert [len(batch["images"]) for batch in halves[1]] == [4, 3]
    assert sorted(name for half in halves for batch in half for name in ids(batch)) == sorted(
        name for batch in first for name in ids(batch)
    )


def test_data_sets_are_mixed_by_weight_and_each_keeps_its_place(small_data, tmp_path):
    other = write_data(tmp_path / "other", [9, 4], seed=7)
    reader = PretrainingReader({small_data: 0.75, other: 0.25}, SMALL, 8, seed=3)
    names = [name for batch in take(reader, 14) for name in ids(batch)]
    mine = [name for name in names if name.startswith("0")]
    theirs = [name for name in names if name.startswith("7")]
    assert reader.state()["positions"] == [len(mine), len(theirs)]
    assert 0.6 < len(mine) / len(names) < 0.9
    assert all(len(set(mine[i : i + 14])) == 14 for i in range(0, len(mine) - 14, 14))
    # With new weights each data set goes on where it was.
    state = reader.state()
    reweighted = PretrainingReader({small_data: 0.25, other: 0.75}, SMALL, 8, seed=3)
    reweighted.restore(state)
    more = [name for batch in take(reweighted, 6) for name in ids(batch)]
    theirs += [name for name in more if name.startswith("7")]
    assert all(len(set(theirs[i : i + 13])) == 13 for i in range(0, len(theirs) - 13, 13))
    with pytest.raises(UsageError, match="one data set"):
        PretrainingReader({small_data: 1, other: 1}, VALIDATION, 8, seed=3)


def test_every_way_to_name_the_data_gives_the_same_records(small_data, tmp_path):
    shards = sorted(Path(small_data).glob("*.tfrecord"))
    for i, shard in enumerate(shards):
        shutil.copy(shard, tmp_path / f"train{i:05d}of32800.tfrecord")
    expected = Counter(name for batch in take(PretrainingReader(small_data, SMALL, 14, 0), 1) for name in ids(batch))
    published = replace(SMALL, stream=StreamOptions(files=3))
    pattern = str(tmp_path / "train{:05d}of32800.tfrecord")
    for data in (f"{small_data}/manifest.json", f"{tmp_path}/*.tfrecord", str(tmp_path), pattern):
        batch = next(PretrainingReader(data, published, 14, 0))
        assert Counter(ids(batch)) == expected
    assert len(ids(next(PretrainingReader(str(shards[1]), SMALL, 3, 0)))) == 3


def test_the_golden_shard_gives_the_published_shapes(golden):
    held = json.loads((golden / "j_reader.json").read_text())
    config = replace(ReaderConfig.from_published(held["config_used"]), image_dtype="float32", audio_dtype="float32")
    batch = next(PretrainingReader(str(golden / "train00000of00001.tfrecord"), config.with_parity(), 2, seed=0))
    expected = {k: v for k, v in held["output_spec_batch2_no_bfloat16"].items() if v["dtype"] != "string"}
    assert {k: (list(v.shape), str(v.dtype)) for k, v in batch.items()} == {
        k: (v["shape"], v["dtype"]) for k, v in expected.items()
    }
    assert (batch["video_src_index"] == 1).all()
    narrow = ReaderConfig.from_published(held["config_used"])
    assert (
        str(next(PretrainingReader(str(golden / "train00000of00001.tfrecord"), narrow, 2, 0))["images"].dtype)
        == "bfloat16"
    )


def test_examples_are_decoded_and_unmasked(small_data):
    held = list(examples(small_data))
    assert len(held) == 14
    segment = held[0][0][0]
    assert segment.image.shape == (40, 64, 3)
    assert segment.log_mel.shape == (188, 64)
    assert segment.tokens.size == 3


def copied(small_data, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(small_data, folder)
    return folder, folder / shard_name("train", 0, 1, 3)


def test_a_flipped_bit_is_named_and_can_be_replaced(small_data, tmp_path):
    folder, shard = copied(small_data, tmp_path)
    content = bytearray(shard.read_bytes())
    start = int(np.frombuffer((folder / index_path(shard.name)).read_bytes(), "<u8")[1])
    content[start + 500] ^= 4
    shard.write_bytes(content)
    with pytest.raises(ReaderError, match=f"record 1 of .*{shard.name}.* at byte {start}.*checksum"):
        take(PretrainingReader(str(folder), SMALL, 2, seed=0), 8)
    tolerant = replace(SMALL, stream=StreamOptions(bad_records=1))
    readers = [PretrainingReader(str(folder), tolerant, 2, seed=0) for _ in range(2)]
    batches = [take(reader, 14) for reader in readers]
    assert_equal(*batches)
    assert len(readers[0].metrics()["bad_records"]) == 1
    assert "0s1e1____00" not in [name for batch in batches[0] for name in ids(batch)]


def test_damaged_folders_are_refused_with_their_reason(small_data, tmp_path):
    folder, shard = copied(small_data, tmp_path)
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    with pytest.raises(ShardError, match="truncated"):
        take(PretrainingReader(str(folder), SMALL, 2, 0), 8)
    shard.unlink()
    with pytest.raises(ShardError, match="missing"):
        PretrainingReader(str(folder), SMALL, 2, 0)
    shard.write_bytes(whole)
    index = folder / index_path(shard.name)
    index.write_bytes(index.read_bytes()[8:])
    with pytest.raises(ShardError, match="index"):
        take(PretrainingReader(str(folder), SMALL, 2, 0), 8)
    lone = tmp_path / "lone.tfrecord"
    lone.write_bytes(whole[:-10])
    with pytest.raises(ShardError, match="truncated after"):
        PretrainingReader(str(lone), SMALL, 2, 0)
    with pytest.raises(UsageError, match="no shards"):
        PretrainingReader(str(tmp_path / "nothing"), SMALL, 2, 0)


def test_what_does_not_fit_the_configuration_is_said(small_data, tmp_path):
    with pytest.raises(UsageError, match=r"has 4 segments per example and the configuration 16"):
        PretrainingReader(small_data, ReaderConfig(), 2, 0)
    with pytest.raises(UsageError, match="4 segments per example"):
        next(PretrainingReader(f"{small_data}/*.tfrecord", ReaderConfig(), 2, 0))
    with pytest.raises(UsageError, match="set random_text_sequences to 0"):
        next(PretrainingReader(small_data, replace(SMALL, random_text_sequences=1), 2, 0))
    with pytest.raises(UsageError, match="host 2 of 2 hosts is not valid"):
        PretrainingReader(small_data, SMALL, 2, 0, host=2, hosts=2)
    folder, _ = copied(small_data, tmp_path)
    held = manifest.load(str(folder))
    manifest.save(str(folder), replace(held, tokenizer="0" * 64))
    with pytest.raises(VocabularyError, match="missing"):
        PretrainingReader(str(folder), SMALL, 2, 0)


def test_a_state_of_other_data_or_another_seed_is_refused(small_data, tmp_path):
    reader = PretrainingReader(small_data, SMALL, 2, seed=1)
    state = reader.state()
    with pytest.raises(ReaderError, match="other shards"):
        PretrainingReader(write_data(tmp_path / "other", [3]), SMALL, 2, seed=1).restore(state)
    with pytest.raises(ReaderError, match="seed 1"):
        PretrainingReader(small_data, SMALL, 2, seed=2).restore(state)
    with pytest.raises(ReaderError, match="not a valid reader state"):
        reader.restore({"step": 3})


def test_an_error_of_the_storage_that_passes_is_waited_for(small_data, tmp_path):
    folder, shard = copied(small_data, tmp_path)
    moved = shard.with_suffix(".moved")

    def mend():
        time.sleep(0.3)
        moved.replace(shard)

    reader = PretrainingReader(str(folder), VALIDATION, 14, 0)
    shard.replace(moved)
    shard.symlink_to(shard)  # Every access fails with ELOOP until the file is back.
    thread = threading.Thread(target=mend)
    thread.start()
    assert len(ids(next(reader))) == 14
    thread.join()


def test_metrics_say_how_the_reader_keeps_up(small_data):
    reader = PretrainingReader(small_data, SMALL, 2, seed=0)
    assert reader.metrics()["examples"] == 0
    take(reader, 3)
    metrics = reader.metrics()
    assert metrics["examples"] == 6
    assert metrics["examples_per_second"] > 0
    assert metrics["bytes_per_second"] > 0
    assert metrics["wait_seconds"] > 0
    assert metrics["truncated_sequences"] == 0
    json.dumps(metrics)
    reader.close()


def test_eight_segments_and_web_text_have_their_own_shapes(tmp_path):
    data = write_data(tmp_path / "eight", [3], segments=8, texts=2)
    config = ReaderConfig(segments=8, groups=1, grid=(4, 4), random_text_spans=10, sequence_length=192)
    batch = next(PretrainingReader(data, config, 3, 0))
    assert batch["images"].shape == (3, 8 * 16, 768)
    assert batch["audio_clips"].shape == (3, 8 * 3 * 60, 65)
    assert batch["text_spans"].shape == (3, 6 + 6 + 10, 15)
    assert batch["text2audio"].shape == (3, 1, 160)
    assert batch["random_text"].shape == (3, 1, 192)


@pytest.mark.parametrize("method", METHODS)
def test_resizing_equals_tensorflow(method, parity):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for height, width, new_height, new_width in ((288, 512, 198, 352), (70, 90, 150, 193), (217, 512, 140, 330)):
        image = rng.random((height, width, 3), dtype=np.float32)
        expected = tf.image.resize(image, (new_height, new_width), method, antialias=True).numpy()
        resized = image
        for axis, size in ((0, new_height), (1, new_width)):
            first, weights = taps(image.shape[axis], size, method)
            matrix = np.zeros((size, image.shape[axis] + weights.shape[1]), np.float64)
            for i, start in enumerate(first):
                matrix[i, start : start + weights.shape[1]] = weights[i]
            resized = np.moveaxis(np.tensordot(matrix[:, : image.shape[axis]], resized, (1, axis)), 0, axis)
        error = np.abs(resized - expected).max()
        parity.record("tf.image.resize", method, error)
        assert error < 2e-4


def test_published_mappings_are_read_without_unknown_keys(golden):
    flat = json.loads((golden / "j_reader.json").read_text())["config_used"]
    config = ReaderConfig.from_published(flat)
    assert (config.span_rows, config.rows, config.targets) == (62, 48, 12)
    assert config.text_shape.budget == 38
    sections = {"data": {"num_segments": 16, "train_fns": "x/ytt180m/{}"}, "model": {"output_grid": [18, 32]}}
    config = ReaderConfig.from_published(sections | {"device": {"n_fns_per_cycle": 7}})
    assert (config.grid, config.stream.window, config.span_statistics) == ((18, 32), 7, "v1")
    with pytest.raises(UsageError, match="'num_segmnts'"):
        ReaderConfig.from_published({"num_segmnts": 16})
    with pytest.raises(UsageError, match="spec_size"):
        ReaderConfig.from_published({"spec_size": 100})
    with pytest.raises(UsageError, match="groups"):
        ReaderConfig(segments=16, groups=3)


def test_a_missing_file_is_named(small_data, tmp_path):
    folder, shard = copied(small_data, tmp_path)
    reader = PretrainingReader(str(folder), VALIDATION, 14, 0)
    shard.unlink()
    with pytest.raises(StorageError, match=shard.name):
        next(reader)


class NumberParser:
    """Records of eight bytes, for a reader of something else than videos."""

    def spec(self):
        return {"number": ((), np.dtype(np.int64)), "draw": ((2,), np.dtype(np.float32))}

    def __call__(self, payload, streams, out):
        out["number"][...] = int.from_bytes(payload, "little")
        out["draw"][:] = streams("draw").random(2)
        return {"odd": int(out["number"]) % 2}


def test_any_record_format_has_the_same_order_and_states(tmp_path):
    for shard in range(3):
        framed = [tfrecord.frame((shard * 10 + i).to_bytes(8, "little")) for i in range(10)]
        (tmp_path / f"train{shard}.tfrecord").write_bytes(b"".join(framed))
    reader = Reader(str(tmp_path), NumberParser(), 6, seed=5)
    first = take(reader, 5)
    assert sorted(np.concatenate([batch["number"] for batch in first])) == list(range(30))
    state = reader.state()
    later = take(reader, 2)
    other = Reader(str(tmp_path), NumberParser(), 6, seed=5)
    other.restore(state)
    assert_equal(take(other, 2), later)
    assert reader.metrics()["odd"] == sum(int((batch["number"] % 2).sum()) for batch in [*first, *later])


def test_after_an_error_the_reader_stays_where_it_was(small_data, tmp_path):
    folder, shard = copied(small_data, tmp_path)
    whole = shard.read_bytes()
    reader = PretrainingReader(str(folder), VALIDATION, 14, 0)
    shard.write_bytes(whole[:-1])
    with pytest.raises(ShardError, match="truncated"):
        next(reader)
    shard.write_bytes(whole)
    assert len(ids(next(reader))) == 14
