"""The published large run, 16 days on 512 TPU v3 cores for 750,000 steps of 1,024 examples:

    python -m train.pretrain large --data gs://BUCKET/shards --workdir gs://BUCKET/runs/large

See docs/spec/training.md 4. Finetuned, the paper's weights of this run answer 84.0 % of VCR's questions (Q->A, test).
"""

from __future__ import annotations

from dataclasses import replace

from model.config import LARGE as MODEL
from train.config import OptimizerConfig, TrainConfig

CONFIG = TrainConfig(
    model=replace(MODEL, scan_layers=True), optimizer=OptimizerConfig(learning_rate=3e-4), layout="auto"
)
