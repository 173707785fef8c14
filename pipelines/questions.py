"""Lines of questions become verified shards: the job behind `pipelines.vcr`, `pipelines.tvqa` and `pipelines.choices`.

Line i of a split goes to shard i mod n, in order. Each shard is committed by itself and the manifest comes last, so the
same command continues a job that was stopped; every question has one line in the ledger.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.outcomes import Kind
from ingest.questions import QuestionError, QuestionOutcome
from pipelines.beam_flags import beam_options
from pipelines.dataflow_job import JobIdentity
from pipelines.execution import new_pipeline, prepare_workers, run_to_end
from pipelines.folder import keep_log, log_path
from pipelines.preparers import Preparer, Records
from pipelines.question_options import TEST, QuestionOptions
from shards import dataset, filesystem, manifest, writer
from shards import tokenizer as vocabulary
from shards.errors import UsageError, UserError
from shards.inspection import stats
from shards.inspection.question_stats import QuestionSums
from shards.ledger import Entry, Ledger
from shards.manifest import Generation, Manifest, Shard, shard_name

CONFIG_NAME = "config.json"
TOKENIZER_NAME = "tokenizer.json"
_SHARDS = {"train": 256}
_OTHER_SHARDS = 8
_REPORT_SECONDS = 30.0
_WORKERS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of the workers: one thread each, which is faster and gives the same numbers on any machine."""


@dataclass(frozen=True)
class Job:
    """One split to prepare: the file of its lines, where the shards go, and who prepares a line."""

    lines: str
    out: str
    split: str
    preparer: Preparer
    tokenizer: str = "published"
    shards: int | None = None
    limit: int | None = None

    @property
    def strict(self) -> bool:
        """Whether every question must be there in the end."""
        return self.split == TEST


@dataclass(frozen=True)
class ShardWork:
    """One shard to write: its name, the digest of what it is made from, and its lines as (number, offset, length)."""

    name: str
    digest: str
    lines: tuple[tuple[int, int, int], ...]


class IncompleteShardError(Exception):
    """A shard that must be complete lacks a question."""


class WriteQuestions(beam.DoFn):
    """ShardWork -> Shard: prepare its lines in order and commit the shard; one that is finished already is kept."""

    def __init__(self, job: Job):
        self.job = job

    def setup(self) -> None:
        """Open the vocabulary and this worker's own ledger file."""
        self.prepare = self.job.preparer.open()
        self.ledger = Ledger(self.job.out, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")

    def process(self, work: ShardWork) -> Iterator[Shard]:
        """Write one shard; nothing is committed where a question of a strict split cannot be prepared."""
        sums = QuestionSums()
        try:
            yield writer.write_records(self.job.out, work.name, work.digest, self._payloads(work, sums), sums)[0]
        except IncompleteShardError:
            Metrics.counter("job", "incomplete_shards").inc()

    def _payloads(self, work: ShardWork, sums: QuestionSums) -> Iterator[bytes]:
        failed = False
        with filesystem.open_read(self.job.lines) as file:
            for number, offset, length in work.lines:
                file.seek(offset)
                begun = time.process_time()
                name, outcome, detail, records = self._attempt(file.read(length), number)
                self.ledger.append(_entry(name, outcome, detail, self.job.split, len(records), begun))
                Metrics.counter("outcome", outcome.value).inc()
                failed |= outcome is not QuestionOutcome.PREPARED
                for record_id, payload in records:
                    sums.add(record_id, payload)
                    yield payload
        if failed and self.job.strict:
            raise IncompleteShardError

    def _attempt(self, text: bytes, number: int) -> tuple[str, QuestionOutcome, str, Records]:
        name = f"{self.job.split}-{number}"
        try:
            line = json.loads(text)
            if not isinstance(line, dict):
                raise QuestionError(QuestionOutcome.BAD_LINE, "the line is no JSON object")
            records = self.prepare(line, name)
            return name, QuestionOutcome.PREPARED, "", records
        except QuestionError as error:
            return name, error.outcome, str(error), []
        except ValueError as error:
            return name, QuestionOutcome.BAD_LINE, f"the line cannot be used: {str(error)[:120]}", []


def _entry(name: str, outcome: QuestionOutcome, detail: str, split: str, records: int, begun: float) -> Entry:
    spent = round(time.process_time() - begun, 4)
    return Entry(name, outcome.value, outcome.kind.value, detail, {}, split, records, 0.0, spent, round(time.time(), 3))


def job_of(options: QuestionOptions, lines: str, preparer: Preparer) -> Job:
    """The job of a command whose questions are the lines of one file."""
    return Job(lines, options.out, options.split, preparer, options.tokenizer, options.shards, options.limit)


def prepare(job: Job, flags: Sequence[str]) -> int:
    """Write the shards of one split, on the runner that Beam's flags name, and return the exit status.

    Raises `UsageError` for a job that cannot be, `UserError` if shards are missing in the end.
    """
    options = beam_options(flags)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    places = _line_places(job)
    prepare_workers(options)
    filesystem.make_folder(job.out)
    with filesystem.exclusive(filesystem.join(job.out, ".lock")):
        keep_log(log_path(job.out))
        filesystem.remove_temporary_files(job.out)
        config = _settle_config(job)
        held = manifest.load(job.out) if filesystem.exists(filesystem.join(job.out, manifest.NAME)) else None
        works = plan(job, places, config, held)
        if held and job.split in held.splits():
            _check_same(job, held, works)
            console.print(f"the split {job.split!r} is finished; nothing to do")
            return 0
        pending = [work for work in works if writer.finished_shard(job.out, work.name, work.digest) is None]
        console.print(f"{len(places)} questions, {len(works)} shards, {len(works) - len(pending)} finished before")
        if pending:
            _run(job, pending, options, console)
        return _commit(job, works, config, held, console)


def plan(job: Job, places: list[tuple[int, int, int]], config: str, held: Manifest | None) -> list[ShardWork]:
    """The shards of a split: line i goes to shard i mod n (spec finetune_data.md 1)."""
    wanted = job.shards or _SHARDS.get(job.split, _OTHER_SHARDS)
    count = min(wanted, len(places))
    generations = held.generations if held else []
    number = next((g.number for g in generations if g.split == job.split), len(generations))
    works = []
    for i in range(count):
        lines = tuple(places[i::count])
        digest = hashlib.sha256(json.dumps([config, job.split, lines]).encode()).hexdigest()
        works.append(ShardWork(shard_name(job.split, number, i, count), digest, lines))
    return works


def _line_places(job: Job) -> list[tuple[int, int, int]]:
    """Number, offset and length of every line that is not blank. Raises `UsageError` if there is none."""
    if not filesystem.exists(job.lines):
        raise UsageError(f"there is no file {job.lines!r}; give the folder or file that holds the questions")
    places, offset = [], 0
    with filesystem.open_read(job.lines) as file:
        for number, line in enumerate(file):
            if line.strip():
                places.append((number, offset, len(line)))
            offset += len(line)
    if not places:
        raise UsageError(f"{job.lines!r} holds no question")
    return places[: job.limit]


def _settle_config(job: Job) -> str:
    """Store what the folder is made with, or check that it is the same; returns its digest."""
    ours = {
        "task": job.preparer.task,
        "preparation": dataclasses.asdict(job.preparer.config),
        "tokenizer": vocabulary.digest(job.tokenizer),
    }
    path = filesystem.join(job.out, CONFIG_NAME)
    if filesystem.exists(path):
        held = json.loads(filesystem.read_bytes(path))
        for name, mine in ours.items():
            if mine != held.get(name):
                raise UsageError(
                    f"{job.out!r} was made with {name} {held.get(name)!r}, not {mine!r}; use the same or another --out"
                )
    else:
        filesystem.write_bytes(filesystem.join(job.out, TOKENIZER_NAME), vocabulary.content(job.tokenizer))
        filesystem.write_bytes(path, (json.dumps(ours, indent=1) + "\n").encode())
    return hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()


def _check_same(job: Job, held: Manifest, works: list[ShardWork]) -> None:
    names = {shard.name for shard in held.shards(job.split)}
    same = names == {work.name for work in works}
    if not same or any(writer.finished_shard(job.out, work.name, work.digest) is None for work in works):
        raise UsageError(f"{job.out!r} holds other questions as split {job.split!r}; choose another --out or --split")


def _run(job: Job, pending: list[ShardWork], options: PipelineOptions, console: Console) -> None:
    os.environ |= _WORKERS
    identity = JobIdentity(job.split, (job.out, job.lines, str(job.limit)))
    pipeline = new_pipeline(options, log_path(job.out), identity)
    _ = (
        pipeline
        | "Name the shards" >> beam.Create(pending, reshuffle=False)
        | "Spread them over the workers" >> beam.Reshuffle()
        | "Prepare the questions and write them" >> beam.ParDo(WriteQuestions(job))
    )
    run_to_end(pipeline, _progress(job, len(pending), console), console)


def _progress(job: Job, total: int, console: Console) -> Callable[[], None]:
    """Says now and then how many shards are written."""
    begun = last = time.monotonic()

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            done = len(filesystem.list_files(job.out, ".stats.json"))
            console.print(f"{done} shards in the folder, {total} to do in this run, {last - begun:.0f} s")

    return tick


def _commit(job: Job, works: list[ShardWork], config: str, held: Manifest | None, console: Console) -> int:
    """Add the finished shards to the manifest and say what became of the questions."""
    ledger = Ledger(job.out).entries()
    names = [f"{job.split}-{number}" for work in works for number, _, _ in work.lines]
    entries = [ledger[name] for name in names if name in ledger]
    reasons = Counter(entry.outcome for entry in entries if entry.kind != Kind.DONE.value)
    for reason, count in sorted(reasons.items()):
        first = next(entry for entry in entries if entry.outcome == reason)
        console.print(f"{count} {reason}, for example {first.id}: {first.detail}")
    found = [writer.finished_shard(job.out, work.name, work.digest) for work in works]
    shards = [finished[0] for finished in found if finished is not None]
    if len(shards) < len(works):
        if reasons and job.strict:
            raise UserError(
                f"{sum(reasons.values())} of {len(names)} questions of the split {job.split!r} cannot be prepared, and"
                " a leaderboard file needs them all; repair what is named above and run the same command again"
            )
        raise UserError(f"{len(works) - len(shards)} shards were not written; run the same command again")
    if not sum(shard.examples for shard in shards):
        raise UserError("no question could be prepared; the reasons are above and in the ledger")
    prepared = sum(entry.kind == Kind.DONE.value for entry in entries)
    number = len(held.generations) if held else 0
    generation = Generation(number, job.split, prepared, sum(shard.examples for shard in shards), shards)
    generations = [*(held.generations if held else []), generation]
    tokenizer = vocabulary.digest(filesystem.join(job.out, TOKENIZER_NAME))
    committed = Manifest(job.preparer.segments, config, tokenizer, generations)
    manifest.save(job.out, committed)
    summary = stats.summarize(dataset.DataSet(job.out, [], committed), job.split)
    console.print(
        f"{job.out}: {prepared} questions of the split {job.split!r} in {summary.shards} shards,"
        f" {summary.counts['examples']} records, {summary.bytes / 1e6:.1f} MB"
    )
    return 0
