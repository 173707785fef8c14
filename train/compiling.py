"""What a command prints before JAX compiles a program, the longest silence of a run."""

from __future__ import annotations

from rich.console import Console


def announce(console: Console, program: str) -> None:
    """Print that `program` is about to be compiled."""
    console.print(f"compiling {program} (tiny: about 20 s on two cores; larger models: minutes) ...")
