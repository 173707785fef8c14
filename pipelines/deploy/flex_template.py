"""The preprocessing command as the launcher of a Flex Template runs it.

It is in a separate folder, because Python searches the folder of the script for modules first.
"""

import functools
import sys
from collections.abc import Sequence

from pipelines.preprocess import main
from pipelines.runner.command import run_and_leave

_SWITCHES = ("retry_failed", "keep_segments")


def arguments(flags: Sequence[str]) -> list[str]:
    """Return the command's flags for the launcher's, in which switches have values too."""
    switches = {f"--{name}={value}": value for name in _SWITCHES for value in ("true", "false")}
    enabled = [flag.partition("=")[0] for flag in flags if switches.get(flag) == "true"]
    return [flag for flag in flags if flag not in switches] + enabled


if __name__ == "__main__":
    run_and_leave(functools.partial(main, arguments(sys.argv[1:])))
