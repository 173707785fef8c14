"""The demo's run, minutes on two CPU cores:

    python -m train.pretrain tiny --data demo/data --workdir demo/run

Small batches and a constant learning rate, because the first plateau takes many cheap steps. The three losses start at
3.5, 3.9 and 3.9, which is chance; docs/performance.md has the steps at which each begins to fall, and docs/training.md
the accuracies that `make learn` reaches with 16,000 steps.
"""

from __future__ import annotations

from model.config import TINY as MODEL
from train.config import InputConfig, OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=MODEL,
    optimizer=OptimizerConfig(
        learning_rate=1e-3,
        total_steps=100_000,
        warmup_steps=50,
        final_scale=1.0,
        bias_correction=True,
        moments="float32",
    ),
    # The corpus varies enough without random scales, and the reader is faster for it. Frames are matched with words
    # rather than with sounds, which are learned later.
    input=InputConfig(random_scale=False, matching_audio_rate=0.1),
    batch_size=8,
    steps=2_000,
    adapt_to_data=True,
    checkpoint_every=500,
)
