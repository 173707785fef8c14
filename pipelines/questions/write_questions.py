"""Prepare questions and write them as shards, in a Beam pipeline."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterator

import apache_beam as beam

from ingest.questions.question import QuestionOutcome
from pipelines.questions.plan import Job, ShardPlan
from pipelines.questions.sandbox import Prepared, SandboxedPreparer
from pipelines.runner.metering import JOB, OUTCOME, count
from shards.dataset import writer
from shards.dataset.ledger import Entry, Ledger
from shards.dataset.manifest import Shard
from shards.inspection.question_stats import QuestionSums
from shards.storage import filesystem


class IncompleteShardError(Exception):
    """A question is missing from a shard that must be complete."""


class WriteQuestions(beam.DoFn):
    """ShardPlan -> Shard: prepare its lines in order and commit the shard; a finished shard is reused."""

    def __init__(self, job: Job):
        self.job = job

    def setup(self) -> None:
        """Open this worker's ledger file; the child process starts with the first line."""
        self.prepare = SandboxedPreparer(self.job.preparer, self.job.limits)
        self.ledger = Ledger(self.job.out, f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")

    def teardown(self) -> None:
        """End the child."""
        self.prepare.close()

    def process(self, plan: ShardPlan) -> Iterator[Shard]:
        """Write one shard; it is not committed if a question of a strict split cannot be prepared."""
        sums = QuestionSums()
        try:
            yield writer.write_records(self.job.out, plan.name, plan.digest, self._payloads(plan, sums), sums)[0]
        except IncompleteShardError:
            count(JOB, "incomplete_shards")

    def _payloads(self, plan: ShardPlan, sums: QuestionSums) -> Iterator[bytes]:
        failed = False
        repeats = dict(plan.repeats)
        with filesystem.open_read(self.job.lines) as file:
            for number, offset, length in plan.lines:
                file.seek(offset)
                name = self.job.name(number)
                if number in repeats:
                    detail = f"line {repeats[number]} has the same id; the ids of a split must differ"
                    prepared = Prepared(QuestionOutcome.BAD_LINE, detail)
                else:
                    prepared = self.prepare(file.read(length), name)
                self.ledger.append(_entry(name, prepared, self.job.split))
                count(OUTCOME, prepared.outcome.value)
                failed |= prepared.outcome is not QuestionOutcome.PREPARED
                for record_id, payload in prepared.records:
                    sums.add(record_id, payload)
                    yield payload
        if failed and self.job.strict:
            raise IncompleteShardError


def _entry(name: str, prepared: Prepared, split: str) -> Entry:
    return Entry(
        name,
        prepared.outcome.value,
        prepared.outcome.kind.value,
        prepared.detail,
        {},
        split,
        len(prepared.records),
        0.0,
        round(prepared.cpu_seconds, 4),
        round(time.time(), 3),
    )
