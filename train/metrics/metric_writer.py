"""Write the metrics of a run to its metrics file, TensorBoard, W&B if it is configured, and the console.

Only the first process of a run writes. A terminal shows a progress bar with loss and time left, other outputs get plain
lines.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shards.storage import filesystem
from shards.storage.errors import StorageError, UsageError
from train.compilation import devices
from train.distributed import hosts
from train.metrics.formatting import NAME as METRICS_NAME
from train.metrics.formatting import MetricsLog, console_line
from train.metrics.tensorboard import EventFiles

EVENTS_NAME = "events"
_PROJECT = "WANDB_PROJECT"


class MetricWriter:
    """Writes the metrics of one run; a context manager that ends the progress bar and W&B's run.

    TensorBoard's files are in the folder `events` of the work folder. Raises `UsageError` if W&B is configured and not
    installed.
    """

    def __init__(
        self,
        workdir: str,
        step: int,
        steps: int,
        console: Console,
        flops: int = 0,
        config: Mapping[str, Any] | None = None,
    ):
        """`step` is where the run continues, `steps` its end, `flops` the floating-point operations of one example."""
        self._steps, self._flops, self._console = steps, flops, console
        self._log = self._events = self._wandb = self._bar = None
        if not hosts.is_first():
            return
        self._log = MetricsLog(filesystem.join(workdir, METRICS_NAME))
        self._log.drop_after(step)
        self._events = EventFiles(filesystem.join(workdir, EVENTS_NAME), step)
        if os.environ.get(_PROJECT):
            self._wandb = _wandb_run(workdir, config or {})
        if console.is_terminal:
            columns = (
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            self._task = self._bar.add_task("", total=steps, completed=step, text="")

    def __enter__(self) -> MetricWriter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._wandb is not None:
            self._wandb.finish()
        if self._events is not None:
            # The error that ended the run matters more than events that could not be stored.
            with contextlib.suppress(*([StorageError] if kind else [])):
                self._events.close()

    def __call__(self, line: dict[str, float]) -> None:
        """Write a line of metrics; one with a speed gets utilisation and memory too."""
        if "examples_per_second" in line:
            rate = self._flops * line["examples_per_second"]
            if rate:
                line["model_tflops_per_second"] = rate / 1e12
                if (share := devices.utilisation(rate)) is not None:
                    line["mfu"] = share
            line |= devices.memory()
        if self._log is None:
            return
        self._log.append(line)
        step, metrics = int(line["step"]), {n: v for n, v in line.items() if n != "step" and math.isfinite(v)}
        if self._events is not None:
            self._events.write(step, metrics)
        if self._wandb is not None:
            self._wandb.log(metrics, step=step)
        self._show(step, line)

    def _show(self, step: int, line: Mapping[str, float]) -> None:
        if self._bar is not None and "loss" in line:
            text = f"loss {line['loss']:.4f}  {line['examples_per_second']:.1f} examples/s"
            self._bar.update(self._task, completed=step, text=text)
        else:
            self._console.print(console_line(line, self._steps))


def _wandb_run(workdir: str, config: Mapping[str, Any]) -> Any:
    """Start the W&B run of a work folder, or continue it."""
    if importlib.util.find_spec("wandb") is None:
        raise UsageError(
            f"{_PROJECT} is {os.environ[_PROJECT]!r} but wandb is not installed; install it or unset {_PROJECT}"
        )
    import wandb  # pyright: ignore[reportMissingImports] - not among the locked packages

    name, run_id = _run_name(workdir)
    run_id = os.environ.get("WANDB_RUN_ID", run_id)
    return wandb.init(name=name, id=run_id, config=dict(config), resume="allow")


def _run_name(workdir: str) -> tuple[str, str]:
    """Return the name of a work folder's run, and an id that is unique, because many folders are called `run`."""
    address = workdir.rstrip("/") if filesystem.is_remote(workdir) else str(Path(workdir).resolve())
    name = address.rpartition("/")[2]
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:40]
    return name, f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
