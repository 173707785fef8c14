"""Lines of questions become verified shards: the job behind `pipelines.vcr`, `pipelines.tvqa` and `pipelines.choices`.

Line i of a split goes to shard i mod n, in order. Each shard is committed by itself and the manifest comes last, so the
same command continues a job that was stopped; every question has one line in the ledger. A split of which most lines
were rejected is an error, and the same command prepares its shards with such lines again.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.questions.question import QuestionOutcome
from pipelines.questions import lines as question_lines
from pipelines.questions.lines import Place
from pipelines.questions.options import TEST, QuestionOptions
from pipelines.questions.preparers import Preparer
from pipelines.questions.sandbox import Prepared, SandboxedPreparer
from pipelines.runner.beam_flags import beam_options
from pipelines.runner.data_folder import keep_log, log_path
from pipelines.runner.dataflow_job import JobIdentity
from pipelines.runner.execution import new_pipeline, prepare_workers, run_to_end
from pipelines.runner.limits import Limits
from shards import tokenizer as vocabulary
from shards.dataset import location as dataset
from shards.dataset import manifest, writer
from shards.dataset.ledger import Entry, Ledger
from shards.dataset.manifest import Generation, Manifest, Shard, shard_name
from shards.inspection import stats
from shards.inspection.question_stats import QuestionSums
from shards.outcomes import Kind
from shards.storage import filesystem, stored_config
from shards.storage.errors import UsageError, UserError
from shards.storage.stored_config import CONFIG_NAME
from shards.tokenizer_file import TOKENIZER_NAME

_SHARDS = {"train": 256}
_OTHER_SHARDS = 8
_REPORT_SECONDS = 30.0
_WORKERS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of the workers: one thread each, which is faster and gives the same numbers on any machine."""


@dataclass(frozen=True)
class Job:
    """One split to prepare: the file of its lines, where the shards go, what prepares a line, and its limits."""

    lines: str
    out: str
    split: str
    preparer: Preparer
    tokenizer: str = "published"
    shards: int | None = None
    limit: int | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)

    @property
    def strict(self) -> bool:
        """Whether every question must be there in the end."""
        return self.split == TEST


@dataclass(frozen=True)
class ShardWork:
    """One shard to write: its name, the digest of what it is made from, and its lines.

    `repeats` are the lines whose id an earlier line has, with the number of that line.
    """

    name: str
    digest: str
    lines: tuple[Place, ...]
    repeats: tuple[tuple[int, int], ...] = ()


class IncompleteShardError(Exception):
    """A shard that must be complete lacks a question."""


class WriteQuestions(beam.DoFn):
    """ShardWork -> Shard: prepare its lines in order and commit the shard; one that is finished already is kept."""

    def __init__(self, job: Job):
        self.job = job

    def setup(self) -> None:
        """Open this worker's own ledger file; the child that prepares starts with the first line."""
        self.prepare = SandboxedPreparer(self.job.preparer, self.job.limits)
        self.ledger = Ledger(self.job.out, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")

    def teardown(self) -> None:
        """End the child."""
        self.prepare.close()

    def process(self, work: ShardWork) -> Iterator[Shard]:
        """Write one shard; nothing is committed where a question of a strict split cannot be prepared."""
        sums = QuestionSums()
        try:
            yield writer.write_records(self.job.out, work.name, work.digest, self._payloads(work, sums), sums)[0]
        except IncompleteShardError:
            Metrics.counter("job", "incomplete_shards").inc()

    def _payloads(self, work: ShardWork, sums: QuestionSums) -> Iterator[bytes]:
        failed = False
        repeats = dict(work.repeats)
        with filesystem.open_read(self.job.lines) as file:
            for number, offset, length in work.lines:
                file.seek(offset)
                name = f"{self.job.split}-{number}"
                if number in repeats:
                    detail = f"line {repeats[number]} has the same id; the ids of a split must differ"
                    prepared = Prepared(QuestionOutcome.BAD_LINE, detail)
                else:
                    prepared = self.prepare(file.read(length), name)
                self.ledger.append(_entry(name, prepared, self.job.split))
                Metrics.counter("outcome", prepared.outcome.value).inc()
                failed |= prepared.outcome is not QuestionOutcome.PREPARED
                for record_id, payload in prepared.records:
                    sums.add(record_id, payload)
                    yield payload
        if failed and self.job.strict:
            raise IncompleteShardError


def _entry(name: str, prepared: Prepared, split: str) -> Entry:
    outcome, spent, now = prepared.outcome, round(prepared.cpu_seconds, 4), round(time.time(), 3)
    return Entry(
        name, outcome.value, outcome.kind.value, prepared.detail, {}, split, len(prepared.records), 0.0, spent, now
    )


def job_of(options: QuestionOptions, lines: str, preparer: Preparer) -> Job:
    """The job of a command whose questions are the lines of one file."""
    limits = Limits(options.decode_seconds, options.decode_memory_mb << 20)
    return Job(lines, options.out, options.split, preparer, options.tokenizer, options.shards, options.limit, limits)


def prepare(job: Job, flags: Sequence[str]) -> int:
    """Write the shards of one split, on the runner that Beam's flags name, and return the exit status.

    Raises `UsageError` for a job that cannot be, `UserError` if shards are missing in the end or most lines are
    rejected.
    """
    options = beam_options(flags)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    places = question_lines.places(job.lines, job.limit)
    repeats = question_lines.repeated(job.lines, places, job.preparer.id_of, job.split)
    prepare_workers(options)
    filesystem.make_folder(job.out)
    with filesystem.exclusive(manifest.lock_path(job.out)):
        keep_log(log_path(job.out))
        filesystem.remove_temporary_files(job.out)
        config = _check_config(job)
        committed = manifest.load(job.out) if filesystem.exists(filesystem.join(job.out, manifest.NAME)) else None
        works = plan(job, places, config, committed, repeats)
        if generation := _generation(committed, job.split):
            if not generation.shards:
                console.print(f"the split {job.split!r} is prepared again, for most of its lines were rejected")
            elif _mostly_rejected(job, generation):
                console.print(f"most lines of the split {job.split!r} were rejected before; they are tried again")
                committed = _reopen(job, committed, generation, works)
            else:
                _check_same(job, committed, works)
                console.print(f"the split {job.split!r} is finished; nothing to do")
                return 0
        pending = [work for work in works if writer.finished_shard(job.out, work.name, work.digest) is None]
        console.print(f"{len(places)} questions, {len(works)} shards, {len(works) - len(pending)} finished before")
        if pending:
            _run(job, pending, options, console)
        return _commit(job, works, config, committed, console)


def plan(
    job: Job,
    places: list[Place],
    config: str,
    committed: Manifest | None,
    repeats: Mapping[int, int] = MappingProxyType({}),
) -> list[ShardWork]:
    """The shards of a split: line i goes to shard i mod n (docs/spec/finetune_data.md 1)."""
    wanted = job.shards or _SHARDS.get(job.split, _OTHER_SHARDS)
    count = min(wanted, len(places))
    number = _number(committed, job.split)
    works = []
    for i in range(count):
        lines = tuple(places[i::count])
        again = tuple((line, repeats[line]) for line, _, _ in lines if line in repeats)
        made_of = [config, job.split, lines, *([again] if again else [])]
        digest = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
        works.append(ShardWork(shard_name(job.split, number, i, count), digest, lines, again))
    return works


def _generation(committed: Manifest | None, split: str) -> Generation | None:
    """The generation of a split, if there is one: questions have at most one."""
    return next((g for g in committed.generations if g.split == split), None) if committed else None


def _number(committed: Manifest | None, split: str) -> int:
    """The number that the generation of a split has or will have."""
    if generation := _generation(committed, split):
        return generation.number
    return committed.next_number() if committed else 0


def _mostly_rejected(job: Job, generation: Generation) -> bool:
    entries = [entry for entry in Ledger(job.out).entries().values() if entry.split == job.split]
    return 2 * generation.videos < len(entries)


def _reopen(job: Job, committed: Manifest, generation: Generation, works: list[ShardWork]) -> Manifest:
    """The manifest without the shards of a split, of which those are prepared again that lack a question."""
    emptied = dataclasses.replace(generation, videos=0, segments=0, shards=[])
    reopened = dataclasses.replace(
        committed, generations=[emptied if g is generation else g for g in committed.generations]
    )
    manifest.save(job.out, reopened)
    names = {work.name for work in works}
    for shard in generation.shards:
        if shard.name not in names:
            for path in _files(job, shard.name):
                filesystem.remove(path)
    _forget(job, works)
    return reopened


def _forget(job: Job, works: list[ShardWork]) -> None:
    """Let the shards be written again that lack a question."""
    entries = Ledger(job.out).entries()
    for work in works:
        names = (f"{job.split}-{number}" for number, _, _ in work.lines)
        if any(name not in entries or entries[name].kind != Kind.DONE.value for name in names):
            filesystem.remove(_files(job, work.name)[-1])


def _files(job: Job, name: str) -> tuple[str, str, str]:
    """A shard, its index and its sidecar, without which it is not finished."""
    path = filesystem.join(job.out, name)
    return path, manifest.index_path(path), manifest.stats_path(path)


def _check_config(job: Job) -> str:
    """Store what the folder is made with, or check that it is the same; returns its digest."""
    ours = {
        "task": job.preparer.task,
        "preparation": dataclasses.asdict(job.preparer.config),
        "tokenizer": vocabulary.digest(job.tokenizer),
    }
    path = filesystem.join(job.out, CONFIG_NAME)
    if filesystem.exists(path):
        stored = stored_config.parse(filesystem.read_bytes(path), path)
        for name, mine, theirs in stored_config.differences(ours, stored):
            raise UsageError(
                f"{job.out!r} was made with {name} {theirs!r}, not {mine!r}; use the same or another --out"
            )
    else:
        filesystem.write_bytes(filesystem.join(job.out, TOKENIZER_NAME), vocabulary.content(job.tokenizer))
        filesystem.write_bytes(path, (json.dumps(ours, indent=1) + "\n").encode())
    return hashlib.sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()


def _check_same(job: Job, committed: Manifest, works: list[ShardWork]) -> None:
    names = {shard.name for shard in committed.shards(job.split)}
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


def _commit(job: Job, works: list[ShardWork], config: str, committed: Manifest | None, console: Console) -> int:
    """Add the finished shards to the manifest and print the outcomes of the questions."""
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
                f" a leaderboard file needs them all; {_REPAIR}"
            )
        raise UserError(f"{len(works) - len(shards)} shards were not written; run the same command again")
    prepared = sum(entry.kind == Kind.DONE.value for entry in entries)
    if not prepared:
        _forget(job, works)
        raise UserError(f"no question could be prepared: {_summary(reasons)}; {_REPAIR}")
    generation = Generation(
        _number(committed, job.split), job.split, prepared, sum(shard.examples for shard in shards), shards
    )
    others = [g for g in (committed.generations if committed else []) if g.split != job.split]
    generations = sorted([*others, generation], key=lambda g: g.number)
    tokenizer = vocabulary.digest(filesystem.join(job.out, TOKENIZER_NAME))
    committed = Manifest(job.preparer.segments, config, tokenizer, generations)
    manifest.save(job.out, committed)
    summary = stats.summarize(dataset.DataSet(job.out, [], committed), job.split)
    console.print(
        f"{job.out}: {prepared} questions of the split {job.split!r} in {summary.shards} shards,"
        f" {summary.counts['examples']} records, {summary.bytes / 1e6:.1f} MB"
    )
    if 2 * prepared < len(names):
        raise UserError(
            f"{len(names) - prepared} of {len(names)} questions of the split {job.split!r} were rejected:"
            f" {_summary(reasons)}; what was prepared is kept, {_REPAIR}"
        )
    return 0


_REPAIR = "repair what is named above and run the same command again"


def _summary(reasons: Counter[str]) -> str:
    """The most frequent reasons with their numbers."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(3))
