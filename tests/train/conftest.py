"""Golden arrays, the golden model with parameters made from names, and small runs of several processes."""

import functools
import json
import signal
import socket
from pathlib import Path

import jax
import numpy as np
import pytest

from model.config import ReserveConfig
from model.reserve import parameter_shapes
from tests.golden_arrays import golden_parameter
from tests.reader_data import write_data

SMALL = (
    *("--adapt-to-data", "--batch-size", "4", "--model.hidden-size", "32", "--model.sequence-length", "192"),
    *("--optimizer.total-steps", "100", "--log-every", "1", "--checkpoint-every", "4", "--keep", "9"),
    *("--mesh.fsdp", "2"),
)
"""A run of seconds."""
GOLDEN = Path(__file__).parent.parent / "golden" / "model"


@functools.cache
def golden_arrays(name):
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


@functools.cache
def golden_mapping(name):
    return json.loads((GOLDEN / "config.json").read_text())[name]


def slash_path(path):
    return "/".join(key.key for key in path)


@pytest.fixture(scope="session")
def golden():
    return golden_arrays


@pytest.fixture(scope="session")
def mapping():
    return golden_mapping


@pytest.fixture(scope="session")
def model_config():
    """The golden model without random choices that change values."""
    mapping = golden_mapping("tiny_neutral")
    return ReserveConfig.from_published({"model": mapping["model"], "data": mapping["data"]})


@pytest.fixture(scope="session")
def params(model_config):
    def make(path, leaf):
        return golden_parameter(slash_path(path), leaf.shape)

    return jax.tree_util.tree_map_with_path(make, parameter_shapes(model_config))


@pytest.fixture(scope="session")
def named_parameter():
    return golden_parameter


@pytest.fixture(scope="session")
def leaf_paths():
    """Leaves of a tree by slash-joined path."""
    return lambda tree: {slash_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="session")
def small_data(once):
    """Nine examples in two shards, with a vocabulary of their own."""
    return once("small-data", lambda folder: write_data(folder / "data", [5, 4])) / "data"


@pytest.fixture(scope="module")
def start_processes(run, small_data):
    """Start the processes of a training run, each with its share of four simulated devices; kill them in the end.

    `more` are flags for all of them, `each` a function that gives more flags of a process.
    """
    started = []

    def start(workdir, count, *more, steps=12, each=lambda host: ()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        devices = f"--xla_force_host_platform_device_count={4 // count} --xla_backend_optimization_level=0"
        command = ["tiny", "--data", small_data, "--workdir", workdir, *SMALL, "--steps", steps, *more]
        if count > 1:
            command += ["--coordinator", address, "--hosts", count]
        hosts = [("--host", host) for host in range(count)] if count > 1 else [()]
        processes = [
            run.start(
                "train.pretrain",
                *(*command, *host, *each(number)),
                env={"JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices},
            )
            for number, host in enumerate(hosts)
        ]
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
