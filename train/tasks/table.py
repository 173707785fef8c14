"""Which tasks there are, by name."""

from __future__ import annotations

from train.tasks import Task, choices, tvqa, vcr

TASKS: dict[str, Task] = {task.name: task for task in (vcr.TASK, tvqa.TASK, choices.TASK)}
