"""Convert lines of questions into verified shards: the job of `pipelines.vcr`, `pipelines.tvqa`, `pipelines.choices`.

Each shard is committed independently and the manifest is written last, so the same command resumes a stopped job; every
question has one entry in the ledger. If most lines of a split are rejected, the job fails, and the same command
prepares the shards with rejected lines again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from pipelines.questions import lines as question_lines
from pipelines.questions.commit import commit, is_mostly_rejected, reopen, require_same_questions
from pipelines.questions.options import QuestionOptions
from pipelines.questions.plan import Job, ShardPlan, generation_of, plan
from pipelines.questions.preparers import Preparer
from pipelines.questions.write_questions import WriteQuestions
from pipelines.runner import data_folder
from pipelines.runner.beam_flags import beam_options
from pipelines.runner.dataflow_job import JobIdentity
from pipelines.runner.execution import new_pipeline, prepare_workers, run_to_end
from pipelines.runner.limits import Limits
from shards import tokenizer as vocabulary
from shards.dataset import manifest, writer
from shards.storage import filesystem

_REPORT_SECONDS = 30.0
_WORKERS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of the workers: one thread each, which is faster and gives the same numbers on any machine."""


def job_of(options: QuestionOptions, lines: str, preparer: Preparer) -> Job:
    """Return the job of a command whose questions are the lines of one file."""
    limits = Limits(options.decode_seconds, options.decode_memory_mb << 20)
    return Job(lines, options.out, options.split, preparer, options.tokenizer, options.shards, options.limit, limits)


def prepare(job: Job, flags: Sequence[str]) -> int:
    """Write the shards of one split on the runner that Beam's flags select, and return the exit status.

    Raises `UsageError` if the folder belongs to another job, and `UserError` if shards are missing or most lines were
    rejected.
    """
    options = beam_options(flags)
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    places = question_lines.places(job.lines, job.limit)
    repeats = question_lines.repeated(job.lines, places, job.preparer.id_of, job.split)
    prepare_workers(options)
    with data_folder.opened(job.out):
        config = _commit_config(job)
        committed = manifest.find(job.out)
        plans = plan(job, places, config, committed, repeats)
        generation = generation_of(committed, job.split)
        if committed and generation:
            if not generation.shards:
                console.print(f"the split {job.split!r} is prepared again, because most of its lines were rejected")
            elif is_mostly_rejected(job, generation):
                console.print(f"most lines of the split {job.split!r} were rejected before; they are retried")
                committed = reopen(job, committed, generation, plans)
            else:
                require_same_questions(job, committed, plans)
                console.print(f"the split {job.split!r} is finished; nothing to do")
                return 0
        pending = [shard for shard in plans if writer.finished_shard(job.out, shard.name, shard.digest) is None]
        console.print(f"{len(places)} questions, {len(plans)} shards, {len(plans) - len(pending)} finished before")
        if pending:
            _run(job, pending, options, console)
        return commit(job, plans, config, committed, console)


def _commit_config(job: Job) -> str:
    """Store the config of a new data folder, or check that it is the same, and return its digest."""
    config = {
        "task": job.preparer.task,
        "preparation": dataclasses.asdict(job.preparer.config),
        "tokenizer": vocabulary.digest(job.tokenizer),
    }
    data_folder.commit_config(job.out, config, job.tokenizer)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def _run(job: Job, pending: list[ShardPlan], options: PipelineOptions, console: Console) -> None:
    os.environ |= _WORKERS
    identity = JobIdentity(job.split, (job.out, job.lines, str(job.limit)))
    pipeline = new_pipeline(options, data_folder.log_path(job.out), identity)
    _ = (
        pipeline
        | "List the shards" >> beam.Create(pending, reshuffle=False)
        | "Distribute the shards" >> beam.Reshuffle()
        | "Prepare and write the questions" >> beam.ParDo(WriteQuestions(job))
    )
    run_to_end(pipeline, _progress(job, len(pending), console), console)


def _progress(job: Job, total: int, console: Console) -> Callable[[], None]:
    """Return a function that prints the number of written shards every 30 seconds."""
    start = last = time.monotonic()

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last >= _REPORT_SECONDS:
            last = time.monotonic()
            done = len(filesystem.list_files(job.out, ".stats.json"))
            console.print(f"{done} shards in the folder, {total} to write in this run, {last - start:.0f} s")

    return tick
