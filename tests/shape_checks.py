"""Runs the network, its losses, a training step and the reader with every jaxtyping signature checked at run time.

A program of its own, started by `test_shapes.py`: the import hook must come before the modules that it checks.
"""

from jaxtyping import install_import_hook

CHECKED = (
    *("model.attention", "model.encoders", "model.losses", "model.objectives", "model.reserve", "model.rotary"),
    *("model.transformer", "train.step", "shards.reading.masking", "shards.reading.random_text"),
    *("shards.reading.truncation", "shards.reading.pretraining"),
)
"""Modules with shapes in their signatures, but for those whose functions numba compiles."""

with install_import_hook(CHECKED, "beartype.beartype"):
    import dataclasses
    import sys

    import jax
    import numpy as np

    from model.config import TINY
    from model.rotary import angles
    from shards.reader import PretrainingReader, ReaderConfig, StreamOptions
    from tests.pretraining_batches import make_batch
    from train.config import OptimizerConfig, TrainConfig
    from train.mesh import make_mesh
    from train.step import initial_state, make_step


def check_training() -> None:
    """Trace a step of each kind of rotary embedding and span choice, and run the last."""
    for changes in ({}, {"rotary": "standard"}, {"parity": True}, {"scan_layers": True, "span_choice": "group"}):
        model = dataclasses.replace(TINY, **changes)
        optimizer = OptimizerConfig(total_steps=10, warmup_steps=1)
        config = TrainConfig(model, optimizer, batch_size=4, microbatches=2 if changes else 1)
        mesh = make_mesh(config.mesh)
        batch = make_batch(model, config.batch_size, 0)
        step = make_step(config, mesh)
        jax.eval_shape(step, initial_state(config, mesh), batch)


def check_reader(data: str) -> None:
    """Read a batch in this process, from shards of four segments with a sequence of text."""
    sizes = {"segments": 4, "groups": 2, "grid": (2, 3), "text_length": 40, "sequence_length": 192}
    config = ReaderConfig(**sizes, random_text_spans=10, stream=StreamOptions(workers=0))
    reader = PretrainingReader(data, config, batch_size=2, seed=0)
    next(reader)
    reader.close()


def check_the_check() -> None:
    """Make sure that a wrong shape is an error, so that the rest means something."""
    try:
        angles(np.zeros(3, np.int32), 8)
    except Exception as error:
        if "type" in str(error).lower():
            return
        raise
    raise SystemExit("a wrong dtype was accepted")


if __name__ == "__main__":
    check_the_check()
    check_training()
    check_reader(sys.argv[1])
