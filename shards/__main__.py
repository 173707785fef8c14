"""The command line of the shards: `python -m shards stats|show|report|card|export|verify|merge|remove|...`."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from shards import command_line
from shards import tokenizer as vocabulary
from shards.command_line import run_command
from shards.dataset import location as dataset
from shards.storage import filesystem
from shards.storage.errors import UsageError, UserError

if TYPE_CHECKING:
    from shards.inspection.verify import Finding

Data = Annotated[str, tyro.conf.Positional]
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Stats:
    """What the data set holds, in numbers, from the statistics that its jobs left."""

    data: Data
    """A data folder, a pattern, or a list with commas."""
    split: str | None = None
    """Only this split."""
    json: bool = False
    """Print JSON instead of tables."""
    recompute: bool = False
    """Read the shards instead of the statistics."""
    processes: int = CORES
    """Shards read at the same time with --recompute."""

    def run(self, console: Console) -> int:
        """Print the statistics."""
        from shards.inspection import outliers, scanning, stats, stats_tables

        opened = dataset.open_data(self.data, self.split)
        if opened.manifest is None and not self.recompute:
            raise UsageError(f"{self.data!r} has no manifest and so no statistics; --recompute reads its shards")
        if self.recompute:
            sums, problems = scanning.scan(opened, self.processes)
            sums.add(stats.items_of(opened, self.split))
        else:
            sums, problems = stats.sums_of(opened, self.split), []
        summary = stats.summary_of(sums, opened.manifest, self.split)
        found = outliers.outliers(sums)
        if self.json:
            lists = {"outliers": [dataclasses.asdict(outlier) for outlier in found], "problems": problems}
            console.print_json(json.dumps(dataclasses.asdict(summary) | lists))
            return 1 if problems else 0
        for table in stats_tables.tables(summary, found):
            console.print(table)
        for problem in problems:
            console.print(problem, style="red", highlight=False, soft_wrap=True, markup=False)
        return 1 if problems else 0


@dataclass(frozen=True)
class Show:
    """The segments of one example with their words, pictures and sounds."""

    data: Data
    """A data folder, a shard, a pattern, or a list with commas."""
    example: int = 0
    """The example's number."""
    video: str | None = None
    """Instead, the first example that holds the video with this id."""
    random: bool = False
    """Instead, any example."""
    out: str | None = None
    """Write a page (NAME.html) or a picture (NAME.png) instead of drawing in the terminal."""
    play: str | None = None
    """Also write the sound that the spectrograms stand for, as NAME.wav."""
    split: str | None = None
    """Only this split."""
    tokenizer: str | None = None
    """The vocabulary; by default the data folder's, else the published one."""

    def run(self, console: Console) -> int:
        """Show one example."""
        if self.out and not self.out.endswith((".html", ".png")):
            raise UsageError(f"--out is {self.out!r}; its name must end in .html or .png")
        command_line.require_file("--tokenizer", self.tokenizer)
        from shards.inspection import drawing, gallery, report, show
        from shards.records.pretraining import parse_example
        from shards.storage.errors import RecordError

        opened = dataset.open_data(self.data, self.split)
        decode = gallery.decoder(opened.folder, self.tokenizer)
        try:
            path, record = self._find(opened)
            example = parse_example(show.read_payload(path, record))
            segments = [placed.segment for placed in example.segments]
            if self.play:
                filesystem.write_bytes(self.play, drawing.wav(drawing.waveform(segments)))
            if self.out and self.out.endswith(".html"):
                page = report.render(report.one_example(opened, path, record, decode))
                filesystem.write_bytes(self.out, page.encode())
            elif self.out:
                filesystem.write_bytes(self.out, drawing.sheet(segments, [decode(s.tokens) for s in segments]))
            else:
                console.print(show.example_table(path, record, example, decode, console.color_system is not None))
        except RecordError as error:
            raise UserError(str(error)) from None
        for written in filter(None, (self.out, self.play)):
            console.print(f"{written}: record {record} of {path}", highlight=False, soft_wrap=True, markup=False)
        return 0

    def _find(self, opened: dataset.DataSet) -> tuple[str, int]:
        from shards.inspection import show

        if self.video is not None:
            return show.find_video(opened, self.video)
        if self.random:
            path = secrets.choice(opened.shards)
            return path, secrets.randbelow(max(len(show.record_offsets(path)) - 1, 1))
        return show.find(opened, self.example)


@dataclass(frozen=True)
class Report:
    """One page that shows the data set: numbers, charts, examples with their masks, every shard."""

    data: Data
    """A data folder, a shard, a pattern, or a list with commas."""
    out: str = "report"
    """Folder for index.html, which needs no server and no network."""
    examples: int = 200
    """Examples in the gallery."""
    split: str | None = None
    """Only this split."""
    processes: int = CORES
    """Shards without a sidecar read at the same time."""

    def run(self, console: Console) -> int:
        """Write the page and say where it is."""
        from shards.inspection import report

        opened = dataset.open_data(self.data, self.split)
        path = report.write(opened, self.out, self.examples, self.split, self.processes)
        console.print(f"{path}: open it in a browser", highlight=False, soft_wrap=True, markup=False)
        return 0


@dataclass(frozen=True)
class Card:
    """Write the data card, CARD.md, beside the manifest: counts, sources, licences, rules, digests."""

    data: Data
    """A data folder."""

    def run(self, console: Console) -> int:
        """Write the card and say where it is."""
        from shards.inspection import card

        console.print(card.write(dataset.open_data(self.data)), highlight=False, soft_wrap=True, markup=False)
        return 0


@dataclass(frozen=True)
class Export:
    """Write the shards for other toolkits: WebDataset tar files, or Parquet tables."""

    data: Data
    """A data folder, a shard, a pattern, or a list with commas."""
    to: Literal["webdataset", "parquet"]
    """The form."""
    out: str
    """Folder for one file a shard."""
    split: str | None = None
    """Only this split."""

    def run(self, console: Console) -> int:
        """Write the files and name each when it is complete."""
        from shards.inspection import export

        for path in export.export(dataset.open_data(self.data, self.split), self.out, self.to):
            console.print(path, highlight=False, soft_wrap=True, markup=False)
        return 0


@dataclass(frozen=True)
class Verify:
    """Read everything and check every claim; exit status 1 if anything is wrong."""

    data: Data
    """A data folder, a shard, a pattern, or a list with commas."""
    split: str | None = None
    """Only this split."""
    processes: int = CORES
    """Shards checked at the same time."""
    repair: bool = False
    """Write damaged shards again from segments that were kept (--keep-segments), then check again."""
    reader: bool = False
    """Also make the training arrays of every example and check what must hold of them."""

    def run(self, console: Console) -> int:
        """Print what is wrong, or that nothing is."""
        opened = dataset.open_data(self.data, self.split)
        damaged = self._check(opened, console)
        if damaged and self.repair:
            from shards.dataset import repair

            for name in repair.repair(opened, damaged):
                console.print(f"{name} was written again")
            damaged = self._check(opened, console)
        return 1 if damaged else 0

    def _check(self, opened: dataset.DataSet, console: Console) -> set[str]:
        """The paths of the shards (or other files) that something is wrong with."""
        from shards.inspection import verify

        damaged: set[str] = set()
        examples = size = wrong = 0
        for report in verify.verify(opened, self.processes):
            examples, size = examples + report.examples, size + report.bytes
            wrong += len(report.findings)
            print_findings(console, report.findings)
            damaged |= {_shard_of(finding.file) for finding in report.findings}
        if self.reader:
            from shards.inspection import invariants

            splits = [self.split] if self.split or not opened.manifest else opened.manifest.splits()
            findings = [finding for split in splits for finding in invariants.check_data(self.data, split)]
            wrong += len(findings)
            damaged |= {_shard_of(finding.file) for finding in findings}
            print_findings(console, findings)
        verdict = f"{wrong} problems" if wrong else "nothing is wrong"
        console.print(f"{len(opened.shards)} shards, {examples} examples, {size / 1e6:.1f} MB: {verdict}")
        return damaged


@dataclass(frozen=True)
class Merge:
    """Make several data folders one: write a manifest that refers to their shards where they are."""

    out: Data
    """The folder for the manifest; it is written again if it was merged before."""
    data: tyro.conf.Positional[tuple[str, ...]]
    """Data folders, or patterns of them, in the order in which they are read."""

    def run(self, console: Console) -> int:
        """Write the manifest and say what it holds."""
        from shards.dataset import merging

        folders = [folder for data in self.data for folder in dataset.data_folders(data)]
        merged = merging.write(self.out.rstrip("/"), folders)
        examples = sum(generation.examples for generation in merged.generations)
        console.print(f"{self.out}: {len(merged.shards())} shards of {len(folders)} folders, {examples} examples")
        return 0


@dataclass(frozen=True)
class Remove:
    """Take videos out of a data set, for good."""

    data: Data
    """A data folder."""
    ids: str
    """A list as for `pipelines.preprocess --ids`, or one id or address."""

    def run(self, console: Console) -> int:
        """Write the shards concerned again and print what went."""
        # Lists of ids are read by `ingest`, which this package does not import.
        return importlib.import_module("pipelines.maintenance.removal").run(self.data, self.ids, console)


@dataclass(frozen=True)
class TrainTokenizer:
    """Train a vocabulary with the published pipeline on text files."""

    text: tyro.conf.Positional[tuple[str, ...]]
    """UTF-8 text files, one sentence or transcript a line."""
    out: str
    """Where the tokenizer file goes."""
    vocabulary_size: int = 32_768
    """How many tokens, the ten special ones and 256 bytes included."""

    def run(self, console: Console) -> int:
        """Train and write the vocabulary."""
        if not self.text:
            raise UsageError("name at least one text file")
        for path in self.text:
            command_line.require_file("TEXT", path)
        lines = (line for path in self.text for line in Path(path).read_text(errors="replace").splitlines())
        tokenizer = vocabulary.train_tokenizer(lines, self.vocabulary_size)
        filesystem.write_bytes(self.out, tokenizer.to_str(pretty=True).encode())
        console.print(f"{self.out}: {tokenizer.get_vocab_size()} tokens")
        return 0


def _shard_of(file: str) -> str:
    """The shard's path, for a finding in it or in one of its companions."""
    name = file.removesuffix(".index").removesuffix(".stats.json")
    return name if name.endswith(dataset.SUFFIX) else name + dataset.SUFFIX


def print_findings(console: Console, findings: list[Finding]) -> None:
    """One line per finding."""
    for finding in findings:
        console.print(f"{finding.file}: {finding.problem}", style="red", highlight=False, soft_wrap=True)


COMMANDS = {
    "stats": Stats,
    "show": Show,
    "report": Report,
    "card": Card,
    "export": Export,
    "verify": Verify,
    "merge": Merge,
    "remove": Remove,
    "train-tokenizer": TrainTokenizer,
}


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    cli = tyro.extras.subcommand_cli_from_dict
    command = command_line.parse(cli, COMMANDS, "shards", argv, names=COMMANDS)
    for data in command.data if isinstance(command, Merge) else [getattr(command, "data", None)]:
        if data is not None:
            command_line.require_data("DATA", data)
    return command.run(Console(markup=False))


if __name__ == "__main__":
    sys.exit(run_command(main))
