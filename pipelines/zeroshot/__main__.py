"""Zero-shot benchmarks as commands: `python -m pipelines.zeroshot epic --annotations A --videos V --out O`.

The same command continues where it was stopped, and prints the score at its end.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console

from pipelines.inference import options as ask_options
from pipelines.zeroshot.benchmark import KEPT, chance, find_videos, majority, read_rankings
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
    """Ask a benchmark's questions of a model that was not trained for them."""

    benchmark: Annotated[Named, tyro.conf.arg(name="")]
    videos: str
    """The folder under which the videos are."""
    out: str
    """The JSONL file of rankings that is made or continued."""
    checkpoint: str = "large"
    """As for `pipelines.ask`."""
    grid: tuple[int, int] | None = None
    """As for `pipelines.ask`."""


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    config = (tyro.conf.CascadeSubcommandArgs,)
    asked = command_line.parse(
        tyro.cli, ZeroShot, "pipelines.zeroshot", argv, names=NAMES, noun="benchmark", config=config
    )
    command_line.require_folder("--videos", asked.videos)
    command_line.require_folder("--annotations", getattr(asked.benchmark, "annotations", None))
    for name in ("questions", "training", "list", "classes"):
        command_line.require_file(f"--{name}", getattr(asked.benchmark, name, None))
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    benchmark = asked.benchmark.load()
    for remark in benchmark.remarks:
        console.print(f"note: {remark}")
    videos = find_videos(asked.videos)
    waiting = len(benchmark.questions) - len(read_rankings(asked.out))
    if waiting > 0:
        ask_options.check_checkpoint(asked.checkpoint)
        from rich.progress import track

        from pipelines.inference.weights import input_errors, load_weights
        from pipelines.zeroshot.ranking import run

        model = load_weights(asked.checkpoint, asked.grid)
        with input_errors():
            for _ in track(run(model, benchmark, videos, asked.out), "asking", waiting, console=console):
                pass
    rankings = read_rankings(asked.out)
    failed = [ranking for ranking in rankings.values() if ranking.error]
    if failed:
        console.print(f"note: {len(failed)} questions count as wrong, the first since {failed[0].error}")
    from rich.table import Table

    by_chance, by_majority = chance(benchmark, KEPT), majority(benchmark, KEPT)
    table = Table("", "%", "chance %", "most frequent answers %", title=f"{len(benchmark.questions)} questions")
    for name, value in benchmark.score(rankings).items():
        table.add_row(name, *(f"{100 * share:.2f}" for share in (value, by_chance[name], by_majority[name])))
    Console(highlight=False).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
