"""What a run in a bucket leaves there beside its figures and weights: compiled programs and a profile."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from shards.command_line import run_command
from shards.storage import filesystem
from tests.reader_data import write_data
from train import pretrain
from train.compilation.compiling import keep_programs

CACHED = "/jax/compilation_cache/cache_hits"
STEP = "jit__step"
"""How JAX calls the training step."""
SMALL = (
    *("--adapt-to-data", "--batch-size", "2", "--model.hidden-size", "32", "--model.sequence-length", "192"),
    *("--optimizer.total-steps", "100", "--log-every", "1"),
)


def steps(workdir):
    """The compiled training steps that lie in a work folder."""
    return [path for path in filesystem.list_files(f"{workdir}/compiled") if f"/{STEP}-" in path]


@pytest.fixture
def as_new_process():
    """JAX without compiled programs or a folder for them, as in a new process; gives the events that it counts."""
    settings = {"jax_compilation_cache_dir": None, "jax_persistent_cache_min_compile_time_secs": 0.1}
    before = {name: getattr(jax.config, name) for name in settings}
    events = []

    def note(event, **more):
        events.append(event)

    def forget():
        jax.clear_caches()
        compilation_cache.reset_cache()
        for name, value in settings.items():
            jax.config.update(name, value)
        events.clear()
        return events

    jax.monitoring.register_event_listener(note)
    yield forget
    jax.monitoring.unregister_event_listener(note)
    compilation_cache.reset_cache()
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_run_leaves_its_programs_and_its_profile_in_the_bucket(bucket, as_new_process, tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", os.environ["STORAGE_EMULATOR_HOST"])
    workdir, data = f"{bucket}/run", write_data(tmp_path / "data", [5, 4])
    command = ["tiny", "--data", str(data), "--workdir", workdir, *SMALL]

    events = as_new_process()
    assert run_command(lambda: pretrain.main([*command, "--steps", "5", "--profile", "1"])) == 0
    assert CACHED not in events
    compiled = steps(workdir)
    assert len(compiled) == 1
    (session,) = filesystem.list_folders(f"{workdir}/profile/plugins/profile")
    (trace,) = filesystem.list_files(f"{workdir}/profile/plugins/profile/{session}", ".xplane.pb")
    assert STEP.encode() in filesystem.read_bytes(trace)

    events = as_new_process()
    assert run_command(lambda: pretrain.main([*command, "--steps", "6"])) == 0
    assert events.count(CACHED) >= 1
    assert steps(workdir) == compiled


def test_a_place_that_was_given_is_kept_and_a_disk_needs_none(bucket, as_new_process, tmp_path):
    as_new_process()
    keep_programs(str(tmp_path))
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    keep_programs(f"{bucket}/run")
    assert jax.config.jax_compilation_cache_dir == str(tmp_path)
