"""What the launcher of a Flex Template runs: the preprocessing command.

It lies in a folder of its own, because Python looks for modules beside the file that it is given first.
"""

import functools
import sys
from collections.abc import Sequence

from pipelines.preprocess import main
from pipelines.runner.command import run_and_leave

_SWITCHES = ("retry_failed", "keep_segments")


def arguments(given: Sequence[str]) -> list[str]:
    """The command's flags: the launcher gives every parameter a value, also those that are switches of the command."""
    switches = {f"--{name}={value}": value for name in _SWITCHES for value in ("true", "false")}
    on = [flag.partition("=")[0] for flag in given if switches.get(flag) == "true"]
    return [flag for flag in given if flag not in switches] + on


if __name__ == "__main__":
    run_and_leave(functools.partial(main, arguments(sys.argv[1:])))
