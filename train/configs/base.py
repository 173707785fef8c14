"""The published base run, 5 days on 512 TPU v3 cores for 750,000 steps of 1,024 examples:

    python -m train.pretrain base --data gs://BUCKET/shards --workdir gs://BUCKET/runs/base

See docs/spec/training.md 4. `layout="auto"` chooses mesh, recomputation and microbatches for the accelerators that are
there; docs/tpu.md has what a step costs on others. Finetuned, the paper's weights of this run answer 79.3 % of VCR's
questions (Q->A, test).
"""

from __future__ import annotations

from dataclasses import replace

from model.config import BASE as MODEL
from train.config import TrainConfig

CONFIG = TrainConfig(model=replace(MODEL, scan_layers=True), layout="auto")
