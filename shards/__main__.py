"""Commands on data sets: `python -m shards stats|show|report|card|export|verify|merge|remove|train-tokenizer`."""

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

Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
Split = Annotated[str | None, tyro.conf.arg(metavar="SPLIT")]
File = tyro.conf.arg(metavar="FILE")
Folder = tyro.conf.arg(metavar="FOLDER")
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Stats:
    """Print the statistics of a data set: counts, histograms, outcomes, outliers."""

    data: Data
    """A data folder, a pattern, or a comma-separated list of these."""
    split: Split = None
    """Use only this split."""
    json: bool = False
    """Print JSON instead of tables."""
    recompute: bool = False
    """Read the shards instead of the stored statistics."""
    processes: Number = CORES
    """Number of shards to read in parallel with --recompute."""

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
        unusual = outliers.outliers(sums)
        if self.json:
            lists = {"outliers": [dataclasses.asdict(outlier) for outlier in unusual], "problems": problems}
            console.print_json(json.dumps(dataclasses.asdict(summary) | lists))
            return 1 if problems else 0
        for table in stats_tables.tables(summary, unusual):
            console.print(table)
        for problem in problems:
            console.print(problem, style="red", highlight=False, soft_wrap=True, markup=False)
        return 1 if problems else 0


@dataclass(frozen=True)
class Show:
    """Show the segments of one example with their words, frames and spectrograms."""

    data: Data
    """A data folder, a shard, a pattern, or a comma-separated list of these."""
    example: Number = 0
    """Number of the example, counting from 0 through all shards."""
    video: Annotated[str | None, tyro.conf.arg(metavar="ID")] = None
    """Show the first example with the video of this id instead."""
    random: bool = False
    """Show a random example instead."""
    out: Annotated[str | None, File] = None
    """Write an HTML page (NAME.html) or an image (NAME.png) instead of printing to the terminal."""
    play: Annotated[str | None, File] = None
    """Also write the sound, reconstructed from the spectrograms, to this WAV file."""
    split: Split = None
    """Use only this split."""
    tokenizer: Annotated[str | None, File] = None
    """The tokenizer file; default: the one in the data folder, or else the published one."""

    def run(self, console: Console) -> int:
        """Print or write one example."""
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
    """Write one HTML page about a data set: statistics, charts, examples with masks, a table of the shards."""

    data: Data
    """A data folder, a shard, a pattern, or a comma-separated list of these."""
    out: Annotated[str, Folder] = "report"
    """Output folder for index.html, a self-contained page."""
    examples: Number = 200
    """Number of examples in the gallery."""
    split: Split = None
    """Use only this split."""
    processes: Number = CORES
    """Number of shards without a sidecar to read in parallel."""

    def run(self, console: Console) -> int:
        """Write the page and print its path."""
        from shards.inspection import report

        opened = dataset.open_data(self.data, self.split)
        path = report.write(opened, self.out, self.examples, self.split, self.processes)
        console.print(f"{path}: open it in a browser", highlight=False, soft_wrap=True, markup=False)
        return 0


@dataclass(frozen=True)
class Card:
    """Write the data card, CARD.md, next to the manifest: counts, sources, licences, settings, digests."""

    data: Data
    """A data folder."""

    def run(self, console: Console) -> int:
        """Write the card and print its path."""
        from shards.inspection import card

        console.print(card.write(dataset.open_data(self.data)), highlight=False, soft_wrap=True, markup=False)
        return 0


@dataclass(frozen=True)
class Export:
    """Export the shards to other formats: WebDataset tar files or Parquet tables."""

    data: Data
    """A data folder, a shard, a pattern, or a comma-separated list of these."""
    to: Literal["webdataset", "parquet"]
    """The output format."""
    out: Annotated[str, Folder]
    """Output folder; one file per shard is written to it."""
    split: Split = None
    """Use only this split."""

    def run(self, console: Console) -> int:
        """Write the files and print the path of each when it is complete."""
        from shards.inspection import export

        for path in export.export(dataset.open_data(self.data, self.split), self.out, self.to):
            console.print(path, highlight=False, soft_wrap=True, markup=False)
        return 0


@dataclass(frozen=True)
class Verify:
    """Read every byte of a data set and check it against manifest, index and schema; exit status 1 on any error."""

    data: Data
    """A data folder, a shard, a pattern, or a comma-separated list of these."""
    split: Split = None
    """Use only this split."""
    processes: Number = CORES
    """Number of shards to check in parallel."""
    repair: bool = False
    """Rewrite damaged shards from the per-video store (--keep-segments), then check again."""
    reader: bool = False
    """Also compute the training arrays of every example and check their invariants."""

    def run(self, console: Console) -> int:
        """Print the errors and a summary."""
        opened = dataset.open_data(self.data, self.split)
        damaged = self._check(opened, console)
        if damaged and self.repair:
            from shards.dataset import repair

            for name in repair.repair(opened, damaged):
                console.print(f"{name} was rewritten")
            damaged = self._check(opened, console)
        return 1 if damaged else 0

    def _check(self, opened: dataset.DataSet, console: Console) -> set[str]:
        """Print the errors and return the paths of the shards (or other files) that have one."""
        from shards.inspection import verify

        damaged: set[str] = set()
        examples = size = errors = 0
        for report in verify.verify(opened, self.processes):
            examples, size = examples + report.examples, size + report.bytes
            errors += len(report.findings)
            print_findings(console, report.findings)
            damaged |= {_shard_of(finding.file) for finding in report.findings}
        if self.reader:
            from shards.inspection import invariants

            splits = [self.split] if self.split or not opened.manifest else opened.manifest.splits()
            findings = [finding for split in splits for finding in invariants.check_data(self.data, split)]
            errors += len(findings)
            damaged |= {_shard_of(finding.file) for finding in findings}
            print_findings(console, findings)
        verdict = f"{errors} errors" if errors else "no errors"
        console.print(f"{len(opened.shards)} shards, {examples} examples, {size / 1e6:.1f} MB: {verdict}")
        return damaged


@dataclass(frozen=True)
class Merge:
    """Merge data folders: write a manifest that refers to their shards in place."""

    out: Annotated[str, tyro.conf.Positional, Folder]
    """Output folder for the manifest; the manifest of an earlier merge is replaced."""
    data: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DATA ...")]
    """Data folders, or patterns of them, in reading order."""

    def run(self, console: Console) -> int:
        """Write the manifest and print its counts."""
        from shards.dataset import merging

        folders = [folder for data in self.data for folder in dataset.data_folders(data)]
        merged = merging.write(self.out.rstrip("/"), folders)
        examples = sum(generation.examples for generation in merged.generations)
        console.print(f"{self.out}: {len(merged.shards())} shards of {len(folders)} folders, {examples} examples")
        return 0


@dataclass(frozen=True)
class Remove:
    """Remove videos from a data set permanently."""

    data: Data
    """A data folder."""
    ids: Annotated[str, File]
    """A list of ids as for `pipelines.preprocess --ids`, or a single id or URL."""

    def run(self, console: Console) -> int:
        """Rewrite the affected shards and print what was removed."""
        # Lists of ids are read by `ingest`, which this package does not import.
        return importlib.import_module("pipelines.maintenance.removal").run(self.data, self.ids, console)


@dataclass(frozen=True)
class TrainTokenizer:
    """Train a vocabulary on text files with the published tokenization pipeline."""

    text: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE ...")]
    """UTF-8 text files with one sentence or transcript per line."""
    out: Annotated[str, File]
    """Output path of the tokenizer file."""
    vocabulary_size: Number = 32_768
    """Number of tokens, including the ten special tokens and 256 bytes."""

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
    """Return the path of the shard that a file (the shard, its index or its sidecar) belongs to."""
    name = file.removesuffix(".index").removesuffix(".stats.json")
    return name if name.endswith(dataset.SUFFIX) else name + dataset.SUFFIX


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print one line per finding."""
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
    """Run the command in `argv` and return its exit status."""
    cli = tyro.extras.subcommand_cli_from_dict
    command = command_line.parse(cli, COMMANDS, "shards", argv, names=COMMANDS)
    for data in command.data if isinstance(command, Merge) else [getattr(command, "data", None)]:
        if data is not None:
            command_line.require_data("DATA", data)
    return command.run(Console(markup=False))


if __name__ == "__main__":
    sys.exit(run_command(main))
