"""What every parser of foreign bytes owes its caller: a value that keeps its promises, or its own typed error.

`TARGETS` maps a kind of input to a call that raises `AssertionError` when a promise is broken, and lets any error
through that is not the parser's own. The seeds are sound inputs of each kind.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from fuzz_files import KINDS
from mutations import damage, damage_json
from PIL import Image

from ingest import captions, raw, video
from ingest.captions import CaptionError
from ingest.id_lists import read_entries, resolved
from ingest.ids import video_id
from ingest.raw import CaptionTrack, RawError, RawVideo
from ingest.segmentation import segment
from ingest.video import VideoConfig
from shards.arrays import audio, images
from shards.dataset import sidecar
from shards.dataset.ledger import parse_lines
from shards.dataset.location import DataSet
from shards.dataset.manifest import NAME as MANIFEST
from shards.dataset.manifest import Generation, Manifest, Shard, index_path, stats_path
from shards.dataset.packing import Run
from shards.dataset.sums import Sums
from shards.dataset.video_store import VideoStore, VideoTable
from shards.inspection import stats
from shards.reading.source import Source
from shards.records import tfrecord
from shards.records.pretraining import arrange, parse_example
from shards.records.segments import Segment, VideoText
from shards.storage.errors import RecordError, UserError

GOLDEN = Path(__file__).parent.parent / "golden" / "data"
CASES = Path(__file__).parent.parent / "fixtures" / "cases"


@dataclass(frozen=True)
class Target:
    """A parser: its sound inputs, how they are damaged, and the call that checks what it makes of one."""

    seeds: Callable[[], list[bytes]]
    damage: Callable
    check: Callable[[bytes], None]


def _index_seeds() -> list[bytes]:
    """The manifest targets that are indexes, with the byte that names them."""
    return [seed for seed in _manifest_seeds() if seed[1:2] != b"{"]


def _damage_index(data: bytes, rng) -> bytes:
    return data[:1] + damage(data[1:], rng)


def _check_words(words: list[captions.Word]) -> None:
    for word in words:
        assert isinstance(word.text, str)
        assert math.isfinite(word.start), word
        assert math.isfinite(word.end), word
        assert word.start <= word.end, word


def _check_captions(data: bytes) -> None:
    text = raw.decode_text(data)
    for timed in (True, False):
        try:
            captions.parse_vtt(text, word_times=timed)
        except CaptionError:
            continue
    for form in ("vtt", "srt", "json3"):
        try:
            words = captions.read(text, form).words
        except CaptionError:
            continue
        _check_words(words)
        segment(captions.clean(words), 30.0, lambda: 0.5)


@cache
def _caption_seeds() -> list[bytes]:
    odd = json.loads((GOLDEN / "a_vtt_odd.json").read_text())
    found = [case["text"].encode() for case in odd if isinstance(case, dict) and isinstance(case.get("text"), str)]
    srt = (
        "1\n00:00:01,000 --> 00:00:02,500\nHello <b>there</b>\n\n2\n00:00:02,000 --> 00:00:04,000\nagain &amp; again\n"
    )
    events = [
        {"tStartMs": 1000, "dDurationMs": 2000, "segs": [{"utf8": "hello"}, {"utf8": " world", "tOffsetMs": 500}]},
        {"tStartMs": 2500, "dDurationMs": 1000, "aAppend": 1, "segs": [{"utf8": "\n"}]},
        {"tStartMs": 3000, "segs": [{"utf8": "more", "tOffsetMs": 10}]},
    ]
    rolling = "WEBVTT\nKind: captions\nLanguage: en\n\n" + "".join(
        f"00:00:{s:02d}.000 --> 00:00:{s + 1:02d}.990 align:start position:0%\ncarried line\n"
        f"word<00:00:{s:02d}.500><c> other</c>\n\n"
        for s in range(1, 6)
    )
    cases = [path.read_bytes() for path in sorted(CASES.glob("*/*.*")) if path.suffix in (".vtt", ".srt", ".json3")]
    return [*found, *cases, srt.encode(), json.dumps({"events": events}).encode(), rolling.encode()]


def _damage_captions(data: bytes, rng) -> bytes:
    return damage_json(data, rng) if data[:1] == b"{" else damage(data, rng)


@cache
def _info_seeds() -> list[bytes]:
    info = {
        "id": "abc",
        "title": "How to draw a circle",
        "description": "Learn https://x.y at home #art",
        "duration": 61,
        "categories": ["Education"],
        "tags": ["draw", "circle"],
        "channel_id": "UC1",
        "view_count": 12,
        "average_rating": 4.5,
        "upload_date": "20200101",
        "language": "en",
        "transcripts": {"en": "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\nhello world again\n"},
        "_captions": {"en-orig": {"form": "json3", "text": '{"events":[]}'}},
        "automatic_captions": {"en": [{"ext": "vtt"}]},
        "subtitles": {"en": [{"ext": "vtt"}]},
    }
    return [json.dumps(info).encode()]


_SCREENING = VideoConfig(timing_model="none")


def _check_info(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        places = raw.layout_paths(folder, "abc")
        places.info.parent.mkdir(parents=True)
        places.info.write_bytes(gzip.compress(data, 1))
        try:
            found = raw.from_layout(folder, "abc")
        except RawError:
            return
    track = CaptionTrack("en", "vtt", _caption_seeds()[-1].decode())
    for item in (found, RawVideo("abc", None, [track], found.info)):
        video.screen(item, _SCREENING)


def _check_list(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        try:
            entries = list(read_entries(file.name))
        except RawError:
            return
    for entry in entries:
        name, refused, detail = resolved(entry)
        name.encode()
        detail.encode()
        assert (video_id(name) == name) == (refused is None), entry


def _list_seeds() -> list[bytes]:
    rows = [f'title {i},gOldVid_{i:03d},"a, b"' for i in range(5)]
    addresses = ["https://www.youtube.com/watch?v=gOldVidA_01&t=3", "youtu.be/gOldVidB_01?si=x", "# a comment", "",
                 "https://www.youtube.com/playlist?list=PLabcdefghijklmnop", "<https://m.youtube.com/shorts/abcdefghij1>"]  # fmt: skip
    table = "\n".join(["title,video_id,note", *rows]) + "\n"
    spellings = [
        table,
        table.replace(",", ";"),
        table.replace(",", "\t"),
        "\n".join(addresses),
        "video_id\r\ngOldVidA_01\r\n",
    ]
    return [text.encode(encoding) for text in spellings for encoding in ("utf-8", "utf-8-sig", "utf-16")]


def _jpeg(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _segments() -> tuple[VideoText, list[Segment]]:
    tokens, times = np.array([300, 301, 302], np.int32), np.array([0.5, 1.0, 2.0], np.float32)
    one = Segment(0.0, 5.0, 1, _jpeg((8, 12, 3)), 12, 8, _jpeg((64, 188)), 80.0, tokens, times, times + 0.4)
    return VideoText("abc", [300], [301], [302], "{}"), [one, one]


@cache
def _record_seeds() -> list[bytes]:
    text, segments = _segments()
    return [arrange([(text, segments)], [np.array([300, 301], np.int32)]).serialize()]


def _check_records(data: bytes) -> None:
    with contextlib.suppress(RecordError):
        for placed in parse_example(data).segments[:2]:
            for decode, jpeg in ((images.decode, placed.segment.image), (audio.decode, placed.segment.spectrogram)):
                with contextlib.suppress(RecordError):
                    decode(jpeg)
    try:
        for _ in tfrecord.scan(io.BytesIO(data), "fuzz"):
            pass
    except RecordError:
        pass


GENERATION_STATS = "train-g0000.stats.json"


@cache
def _folder_files() -> dict[str, bytes]:
    """The small files of a data folder of one shard, and the shard."""
    payload = _record_seeds()[0]
    shard = tfrecord.frame(payload) * 2
    name = "train-g0000-00000of00001.tfrecord"
    held = Manifest(2, "config", "tokenizer", [Generation(0, "train", 1, 4, [Shard(name, 2, len(shard), "0" * 64)])])
    size = len(shard) // 2
    collected = sidecar.Collector()
    for _ in range(2):
        collected.add([Run("abc", 0, 2)], parse_example(payload))
    entry = {"id": "abc", "at": 1.0, "outcome": "extracted", "detail": "", "scores": {}}
    return {
        name: shard,
        MANIFEST: held.to_json().encode(),
        index_path(name): np.array([0, size, 2 * size], "<u8").tobytes(),
        stats_path(name): json.dumps(collected.result()).encode(),
        "ledger": json.dumps(entry).encode(),
        GENERATION_STATS: Sums.of_shard(name, size, collected.result()).to_json().encode(),
    }


def _manifest_seeds() -> list[bytes]:
    # The first byte says which file it is.
    files = _folder_files()
    return [bytes([65 + i]) + data for i, data in enumerate(files.values()) if i]


def _damage_manifest(data: bytes, rng) -> bytes:
    change = damage if data[1:2] != b"{" else damage_json
    return data[:1] + change(data[1:], rng)


def _check_manifests(data: bytes) -> None:
    files = _folder_files()
    name = list(files)[(data[0] - 65) % len(files) if data else 0]
    content = data[1:]
    if name == "ledger":
        list(parse_lines(content))
        return
    if name == MANIFEST:
        try:
            held = Manifest.from_json(content.decode("utf-8", "replace"))
            held.to_json()
        except UserError:
            return
    with tempfile.TemporaryDirectory() as folder:
        for other, held_bytes in files.items():
            # Where a generation has its statistics, sidecars are not read.
            if other == name or other != GENERATION_STATS:
                (Path(folder) / other).write_bytes(content if other == name else held_bytes)
        try:
            source = Source(folder)
            for shard, count in enumerate(source.counts):
                for record in range(min(int(count), 4)):
                    source.read(shard, record)
        except (UserError, RecordError):
            pass
        with contextlib.suppress(UserError):
            stats.summarize(DataSet(folder, [], Manifest.from_json(files[MANIFEST].decode())))


@cache
def _store_seeds() -> list[bytes]:
    text, segments = _segments()
    with tempfile.TemporaryDirectory() as folder:
        store = VideoStore(folder)
        store.commit(VideoTable(text, "config", "extracted", "done"), segments)
        return [Path(store.path("abc")).read_bytes()]


def _check_store(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = VideoStore(folder)
        path = Path(store.path("abc"))
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        try:
            table = store.find("abc")
            if table and table.spans:
                store.read(table, 0, len(table.spans))
        except UserError:
            pass


TARGETS: dict[str, Target] = {
    "captions": Target(_caption_seeds, _damage_captions, _check_captions),
    "info": Target(_info_seeds, damage_json, _check_info),
    "lists": Target(_list_seeds, damage, _check_list),
    "records": Target(_record_seeds, damage, _check_records),
    "manifests": Target(_manifest_seeds, _damage_manifest, _check_manifests),
    "videos": Target(_store_seeds, damage, _check_store),
    "indexes": Target(_index_seeds, _damage_index, _check_manifests),
    **{kind: Target(*parts) for kind, parts in KINDS.items()},
}
