"""The job on a portable runner: a job service and a pool of workers in other processes make the same shards."""

import pytest
from portable import service
from test_job_faults import command, content, finish, undisturbed

pytestmark = pytest.mark.faults
__all__ = ["command", "undisturbed"]


def test_a_portable_runner_makes_the_same_shards(command, undisturbed, tmp_path, faults):
    out = tmp_path / "out"
    with service(tmp_path / "log") as flags:

        def portable(folder):
            return [argument for argument in command(folder, *flags) if not argument.startswith("--direct_num_workers")]

        finish(portable, out)
    assert content(out) == undisturbed[0]
    faults.record("job on a portable runner with a worker pool", "finishes", "byte-equal to the local runner")
