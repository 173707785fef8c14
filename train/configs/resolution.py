"""The stage after pretraining that adapts weights to images of other grids (docs/spec/training.md 5)."""

from __future__ import annotations

from dataclasses import replace

from train.config import TrainConfig, image_zoom


def adapted(config: TrainConfig, grids: tuple[tuple[int, int], ...] = ((18, 32), (24, 24))) -> TrainConfig:
    """Return the stage after `config`, whose steps take the `grids` in turn.

    One epoch at a fiftieth of the learning rate, without turned portraits. The published stage has both grids in one
    step, on different hosts, and keeps the optimizer's moments of pretraining, which here start from zero.
    """
    return replace(
        config,
        model=config.model.with_grid(grids[0]),
        grids=grids,
        optimizer=replace(
            config.optimizer,
            learning_rate=0.02 * config.optimizer.learning_rate,
            total_steps=75_000,
            warmup_steps=15_000,
            final_scale=0.0,
        ),
        input=replace(
            config.input,
            scale_min=1.0,
            scale_max=image_zoom(grids[0]),
            shrink_both_sides=False,
            turn_portraits=False,
            text_limit=1_024,
        ),
        steps=75_000,
    )
