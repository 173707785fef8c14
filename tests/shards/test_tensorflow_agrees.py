"""TensorFlow's own parser and ours read the same records, both ways."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example as case
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.dataset.location import open_data
from shards.inspection import verify
from shards.records import example as record
from shards.records import tfrecord
from shards.records.pretraining import arrange, parse_example
from shards.records.segments import Segment, VideoText
from shards.storage import filesystem
from shards.storage.errors import RecordError

READ_WITH_TENSORFLOW = "tests.programs.read_with_tensorflow"


def jpeg(width, height, mode="RGB"):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def own_shard(tmp_path_factory):
    """A shard of examples of four segments, two videos in each."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("shard") / "own.tfrecord"

    def segment(i):
        n = int(rng.integers(0, 30))
        times = np.sort(rng.random(n).astype(np.float32) * 5)
        return Segment(
            5.0 * i,
            5.0 * i + 5,
            1,
            jpeg(64, 36),
            64,
            36,
            jpeg(188, 64, "L"),
            31.25,
            rng.integers(10, 400, n).astype(np.int32),
            times,
            times + np.float32(0.2),
        )

    with path.open("wb") as file:
        for k in range(5):
            runs = [
                (
                    VideoText(f"video{k}a", [11, 300], [12], [13, 14], '{"view_count": 3}'),
                    [segment(i) for i in range(3)],
                ),
                (VideoText(f"video{k}b", [21]), [segment(7)]),
            ]
            file.write(tfrecord.frame(arrange(runs, [np.arange(10, 1546)]).serialize()))
    return path


def records(path):
    with filesystem.open_read(str(path)) as file:
        return [payload for _, payload in tfrecord.scan(file, str(path))]


def read_with_tensorflow(path, segments):
    ended = subprocess.run(
        [sys.executable, "-m", READ_WITH_TENSORFLOW, str(path), str(segments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent.parent.parent,
        env={**__import__("os").environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)


def test_tensorflow_reads_what_we_write(own_shard):
    payloads = records(own_shard)
    rows = read_with_tensorflow(own_shard, 4)
    assert len(rows) == len(payloads) == 5
    for payload, row in zip(payloads, rows, strict=True):
        ours = record.parse(payload)
        for name, theirs in row.items():
            values = ours[name]
            if isinstance(values, list):
                assert values[0].hex() == theirs, name
            else:
                assert np.array_equal(values, np.array(theirs, values.dtype).reshape(-1)), name


def test_we_read_what_we_write(own_shard):
    for k, payload in enumerate(records(own_shard)):
        parsed = parse_example(payload)
        assert [p.run for p in parsed.segments] == [0, 0, 0, 1]
        assert [p.text.title for p in parsed.segments] == [[11, 300], [], [], [21]]
        assert parsed.segments[0].text.video_id == f"video{k}a"
        assert len(parsed.random_text) == 1
        assert parsed.random_text[0].tolist() == list(range(10, 1546))
        assert parsed.serialize() == payload
        assert verify.check_record(payload, 400) == []


def test_the_golden_shard_reads_as_measured(golden, parity):
    measured = json.loads((golden / "i_shard.json").read_text())
    payloads = records(golden / measured["file"])
    assert len(payloads) == measured["examples"]
    for payload, expected in zip(payloads, measured["segments"], strict=True):
        features = record.parse(payload)
        parsed = parse_example(payload)
        assert len(features) == measured["num_features_per_example"]
        for placed, wanted in zip(parsed.segments, expected, strict=True):
            segment = placed.segment
            assert placed.text.video_id == wanted["youtube_id"]
            assert segment.speed == wanted["playback_speed"]
            assert [segment.width, segment.height] == wanted["image_wh"]
            assert segment.tokens.tolist() == wanted["tok_ids"]
            error = max(
                np.abs(segment.token_starts - wanted["tok_start_times"]).max(initial=0),
                np.abs(segment.token_ends - wanted["tok_end_times"]).max(initial=0),
                abs(segment.start - wanted["start_time"]),
                abs(segment.end - wanted["end_time"]),
                abs(segment.magic - wanted["magic_number"]),
            )
            parity.record("i_shard.json", "times and magic numbers as stored", error)
            assert error < 1e-5
        assert verify.check_record(payload, 32_768) == []


def test_our_records_have_the_published_schema(golden, own_shard):
    published = record.parse(records(golden / "train00000of00001.tfrecord")[0])
    ours = record.parse(records(own_shard)[0])

    def kind(value):
        return "bytes" if isinstance(value, list) else value.dtype.kind

    for name, value in published.items():
        if name[:3] in ("c00", "c01", "c02", "c03"):
            assert name in ours, name
            if len(value) and len(ours[name]):
                assert kind(ours[name]) == kind(value), name
    extra = {name.split("/", 1)[1] for name in ours} - {name.split("/", 1)[1] for name in published}
    assert extra == {"video_src_index"}


def test_a_published_shard_is_verified_without_a_manifest(golden):
    opened = open_data(str(golden / "train00000of00001.tfrecord"))
    (report,) = verify.verify(opened)
    assert (report.examples, report.findings) == (6, [])


def field(number, content):
    return bytes([number << 3 | 2, len(content)]) + content


def entry(name, feature):
    return field(1, field(1, name) + field(2, feature))


ONE, TWO = (field(3, field(1, value)) for value in (b"\1", b"\2"))
ODD = {
    "a name twice": field(1, entry(b"a", ONE) + entry(b"a", TWO)),
    "features twice": field(1, entry(b"a", ONE)) + field(1, entry(b"b", TWO)),
    "a list twice": field(1, entry(b"a", ONE + TWO)),
    "two kinds": field(1, entry(b"a", field(1, field(1, b"x")) + TWO)),
    "values in two parts": field(1, entry(b"a", field(3, field(1, b"\1") + field(1, b"\2")))),
    "values that are not packed": field(1, entry(b"a", field(3, b"\x08\x01\x08\x02"))),
    "floats that are not packed": field(1, entry(b"a", field(2, b"\x0d\0\0\x80\x3f"))),
    "values of another wire type": field(1, entry(b"a", field(3, b"\x09" + b"\1" * 8))),
    "an entry with two values": field(1, field(1, field(1, b"a") + field(2, ONE) + field(2, TWO))),
    "an entry with two names": field(1, field(1, field(1, b"b") + field(1, b"a") + field(2, ONE))),
    "an entry in reverse": field(1, field(1, field(2, ONE) + field(1, b"a"))),
    "an entry without a name": field(1, field(1, field(2, ONE))),
    "an entry without values": field(1, field(1, field(1, b"a"))),
    "unknown fields": field(1, entry(b"a", ONE + field(9, b"z"))) + field(9, b"z"),
    "a name that is not UTF-8": field(1, entry(b"\xff", ONE)),
    "a number of ten bytes": field(1, entry(b"a", field(3, field(1, b"\xff" * 9 + b"\x7f")))),
    "a number of eleven bytes": field(1, entry(b"a", field(3, field(1, b"\xff" * 10 + b"\1")))),
    "floats of three bytes": field(1, entry(b"a", field(2, field(1, b"\0\0\0")))),
}


def assert_read_as_tensorflow_does(payload):
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        theirs = tf.train.Example.FromString(payload)
    except DecodeError:
        with pytest.raises(RecordError):
            record.parse(payload)
        return
    ours = record.parse(payload)
    assert set(ours) == set(theirs.features.feature)
    for name, feature in theirs.features.feature.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        if kind in (None, "bytes_list"):
            assert ours[name] == values
        else:
            dtype = {"float_list": np.float32, "int64_list": np.int64}[kind]
            assert ours[name].dtype == dtype
            np.testing.assert_array_equal(ours[name], np.array(values, dtype))


@pytest.mark.parametrize("kind", ODD)
def test_odd_records_are_read_as_tensorflow_reads_them(kind):
    assert_read_as_tensorflow_does(ODD[kind])


FEATURES = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        st.lists(st.binary(max_size=300), max_size=3),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20).map(lambda v: np.array(v, np.int64)),
        st.lists(st.floats(width=32), max_size=20).map(lambda v: np.array(v, np.float32)),
    ),
    min_size=1,
    max_size=5,
)
FLIPS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=3)


@settings(deadline=None)
@given(FEATURES, FLIPS, st.integers(0, 20))
@case({"a": [b"x"]}, [], 0)
def test_damaged_records_are_read_as_tensorflow_reads_them(features, flips, cut):
    content = bytearray(record.serialize(features))
    for place, bits in flips:
        content[place % len(content)] ^= bits
    assert_read_as_tensorflow_does(bytes(content[: max(len(content) - cut, 0)]))
