"""Verify a data set: every byte is read and checked.

Files are compared with the manifest (size, SHA-256), records with their checksums and the index, contents with the
schema and with the invariants of records (docs/spec/shards.md 16, invariant 25).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from shards import tokenizer as vocabulary
from shards.arrays import jpeg
from shards.dataset.location import DataSet
from shards.dataset.manifest import Manifest, Shard, generation_folder, index_path, stats_path
from shards.inspection import question_stats
from shards.records import example, tfrecord
from shards.records.pretraining import Example, example_of
from shards.records.segments import Segment
from shards.sizes import MEL_BANDS, SPECTROGRAM_COLUMNS
from shards.storage import filesystem
from shards.storage.errors import RecordError
from shards.tokenizer_file import TOKENIZER_NAME
from shards.tokens import FIRST_TEXT_ID

_MOST_PER_SHARD = 20
"""Maximum number of findings listed per shard."""


@dataclass(frozen=True)
class Finding:
    """An error: the file and a sentence."""

    file: str
    problem: str


@dataclass(frozen=True)
class ShardReport:
    """The result of checking one shard."""

    examples: int
    bytes: int
    findings: list[Finding]


def verify(data: DataSet, processes: int = 1) -> Iterator[ShardReport]:
    """Yield a report per shard, and one for the folder itself if it has a manifest."""
    size, findings = _vocabulary_size(data)
    if data.manifest:
        yield ShardReport(0, 0, findings + _check_folder(data, data.manifest))
    jobs = [(path, data.claims.get(path), size) for path in data.shards]
    if processes == 1 or len(jobs) < 2:
        yield from itertools.starmap(check_shard, jobs)
    else:
        with ProcessPoolExecutor(processes) as pool:
            yield from pool.map(check_shard, *zip(*jobs, strict=True))


def _vocabulary_size(data: DataSet) -> tuple[int | None, list[Finding]]:
    """Return the size of the folder's vocabulary, and the errors of its file."""
    path = filesystem.join(data.folder, TOKENIZER_NAME)
    if not filesystem.exists(path):
        return None, [Finding(path, "the vocabulary is missing")] if data.manifest else []
    content = filesystem.read_bytes(path)
    if data.manifest and hashlib.sha256(content).hexdigest() != data.manifest.tokenizer:
        return None, [Finding(path, "the vocabulary is not the one in the manifest")]
    try:
        return vocabulary.load_tokenizer(path).get_vocab_size(), []
    except vocabulary.TokenizerError as error:
        return None, [Finding(path, str(error))]


def _check_folder(data: DataSet, manifest: Manifest) -> list[Finding]:
    folders = dict.fromkeys(generation_folder(data.folder, generation) for generation in manifest.generations)
    present = {path for folder in folders or [data.folder] for path in filesystem.list_files(folder, ".tfrecord")}
    return [
        Finding(path, "the shard is not in the manifest; an interrupted job left it, the next run removes it")
        for path in sorted(present - set(data.claims))
    ]


def check_shard(path: str, claim: Shard | None, vocabulary_size: int | None) -> ShardReport:
    """Read one shard from end to end."""
    findings: list[Finding] = []
    offsets, sha256, examples = [0], hashlib.sha256(), 0
    if not filesystem.exists(path):
        return ShardReport(0, 0, [Finding(path, "the shard is missing")])
    size = filesystem.size(path)
    if claim and size != claim.bytes:
        findings.append(Finding(path, f"the file has {size} bytes instead of {claim.bytes} as in the manifest"))
    try:
        with filesystem.open_read(path) as file:
            for offset, payload in tfrecord.scan(file, path):
                sha256.update(tfrecord.frame(payload))
                offsets.append(offset + len(payload) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES)
                for problem in check_record(payload, vocabulary_size):
                    findings.append(Finding(path, f"record {examples} at byte {offset}: {problem}"))
                examples += 1
    except RecordError as error:
        findings.append(Finding(path, str(error)))
    if claim:
        if examples != claim.examples:
            findings.append(
                Finding(path, f"{examples} records can be read instead of {claim.examples} as in the manifest")
            )
        if sha256.hexdigest() != claim.sha256:
            findings.append(Finding(path, "the SHA-256 of the file is not the one in the manifest"))
        findings += _check_companions(path, offsets, claim)
    return ShardReport(examples, size, findings[:_MOST_PER_SHARD])


def _check_companions(path: str, offsets: list[int], claim: Shard) -> list[Finding]:
    findings = []
    index, sidecar = index_path(path), stats_path(path)
    if not filesystem.exists(index):
        findings.append(Finding(index, "the index is missing"))
    elif filesystem.read_bytes(index) != np.array(offsets, "<u8").tobytes():
        findings.append(Finding(index, "the index does not list the records of its shard"))
    if not filesystem.exists(sidecar):
        findings.append(Finding(sidecar, "the statistics are missing"))
    else:
        try:
            content = json.loads(filesystem.read_bytes(sidecar))
            if content["shard"] != vars(claim) or len(content["runs"]) != claim.examples:
                findings.append(Finding(sidecar, "the statistics are those of another shard"))
        except (ValueError, KeyError, TypeError) as error:
            findings.append(Finding(sidecar, f"the statistics cannot be read ({type(error).__name__})"))
    return findings


def check_record(payload: bytes, vocabulary_size: int | None) -> list[str]:
    """Return the errors of one record, as sentences."""
    try:
        features = example.parse(payload)
        if "qa_query" in features:
            return question_stats.problems(features, payload)
        parsed = example_of(features)
    except RecordError as error:
        return [str(error)]
    problems = []
    for i, placed in enumerate(parsed.segments):
        where, segment = f"c{i:02d}", placed.segment
        for kind, data in (("image", segment.image), ("spectrogram", segment.spectrogram)):
            stated = features.get(f"{where}/{kind}/key/sha256")
            if stated and stated[0].decode("ascii", "replace") != hashlib.sha256(data).hexdigest():
                problems.append(f"the SHA-256 of {where}/{kind} does not match its bytes")
        problems += [f"{where}: {problem}" for problem in _check_segment(segment, vocabulary_size)]
    return [*problems, *_check_runs(parsed)]


def _check_segment(segment: Segment, vocabulary_size: int | None) -> Iterator[str]:
    if segment.speed not in (1, 2, 3):
        yield f"the playback speed is {segment.speed}, not 1, 2 or 3"
    elif abs(segment.end - segment.start - 5 * segment.speed) > 0.02:
        yield f"{segment.start:.2f} to {segment.end:.2f} s is not 5 s at speed {segment.speed}"
    if segment.magic <= 0 or not np.isfinite(segment.magic):
        yield f"the magic number is {segment.magic}"
    if len(segment.tokens) and segment.tokens.min() < FIRST_TEXT_ID:
        yield f"the text holds the special token {segment.tokens.min()}"
    if vocabulary_size and len(segment.tokens) and segment.tokens.max() >= vocabulary_size:
        yield f"the text holds the token {segment.tokens.max()}, the vocabulary has {vocabulary_size}"
    # The sum is not finite if any number is not.
    if not math.isfinite(segment.token_starts.sum(dtype=np.float64) + segment.token_ends.sum(dtype=np.float64)):
        yield "a token time is not a number"
    for kind, data, size in (
        ("image", segment.image, (segment.width, segment.height)),
        ("spectrogram", segment.spectrogram, (SPECTROGRAM_COLUMNS, MEL_BANDS)),
    ):
        try:
            height, width = jpeg.size(data, kind)
        except RecordError as error:
            yield f"the {kind} is not an image" if "not a JPEG" in str(error) else str(error)
            continue
        if (width, height) != size:
            yield f"the {kind} is {width}x{height} instead of {size[0]}x{size[1]}"


def _check_runs(parsed: Example) -> Iterator[str]:
    for (i, a), (_, b) in itertools.pairwise(enumerate(parsed.segments)):
        same_video = a.text.video_id == b.text.video_id
        if same_video and abs(a.segment.end - b.segment.start) > 0.011:
            yield f"segment {i + 1} does not start where segment {i} of the same video ends"
        if not same_video and b.run not in (a.run + 1, 1):
            yield f"segment {i + 1} starts another video and its run number is {b.run} after {a.run}"
