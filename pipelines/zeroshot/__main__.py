"""Run zero-shot benchmarks.

    python -m pipelines.zeroshot epic --annotations A --videos V --out O

The same command resumes a stopped run, and prints the scores when all questions are answered.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from pipelines.inference import options as ask_options
from pipelines.zeroshot.benchmark import MAX_RANKED, chance, find_videos, majority, read_rankings
from pipelines.zeroshot.epic import Epic
from pipelines.zeroshot.kinetics import Kinetics
from pipelines.zeroshot.lsmdc import Lsmdc
from pipelines.zeroshot.msrvtt import Msrvtt
from pipelines.zeroshot.star import Star
from shards import command_line
from shards.command_line import run_command

Named = (
    Annotated[Epic, tyro.conf.subcommand("epic")]
    | Annotated[Msrvtt, tyro.conf.subcommand("msrvtt")]
    | Annotated[Lsmdc, tyro.conf.subcommand("lsmdc")]
    | Annotated[Star, tyro.conf.subcommand("star")]
    | Annotated[Kinetics, tyro.conf.subcommand("kinetics")]
)
NAMES = ("epic", "msrvtt", "lsmdc", "star", "kinetics")


@dataclass(frozen=True)
class ZeroShot:
    """Answer the questions of a benchmark with a model that was not trained for it, and print the scores."""

    benchmark: Annotated[Named, tyro.conf.arg(name="")]
    videos: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The folder of the videos, which may have subfolders."""
    out: ask_options.File
    """The JSONL file of rankings to create or to continue."""
    checkpoint: ask_options.Checkpoint = "large"
    grid: ask_options.Grid = None


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    config = (tyro.conf.CascadeSubcommandArgs,)
    options = command_line.parse(
        tyro.cli, ZeroShot, "pipelines.zeroshot", argv, names=NAMES, noun="benchmark", config=config
    )
    command_line.require_folder("--videos", options.videos)
    command_line.require_folder("--annotations", getattr(options.benchmark, "annotations", None))
    for name in ("questions", "training", "list", "classes"):
        command_line.require_file(f"--{name}", getattr(options.benchmark, name, None))
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    benchmark = options.benchmark.load()
    for remark in benchmark.remarks:
        console.print(f"note: {remark}")
    videos = find_videos(options.videos)
    pending = len(benchmark.questions) - len(read_rankings(options.out))
    if pending > 0:
        ask_options.check_checkpoint(options.checkpoint)
        from rich.progress import track

        from pipelines.inference.weights import input_errors, load_weights
        from pipelines.zeroshot.ranking import run

        model = load_weights(options.checkpoint, options.grid)
        with input_errors():
            for _ in track(run(model, benchmark, videos, options.out), "answering", pending, console=console):
                pass
    rankings = read_rankings(options.out)
    failed = [ranking for ranking in rankings.values() if ranking.error]
    if failed:
        console.print(f"note: {len(failed)} questions count as wrong, the first one because {failed[0].error}")
    from rich.table import Table

    by_chance, by_majority = chance(benchmark, MAX_RANKED), majority(benchmark, MAX_RANKED)
    table = Table("", "%", "chance %", "most frequent answers %", title=f"{len(benchmark.questions)} questions")
    for name, value in benchmark.score(rankings).items():
        table.add_row(name, *(f"{100 * share:.2f}" for share in (value, by_chance[name], by_majority[name])))
    Console(highlight=False).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
