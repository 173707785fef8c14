"""Base on the grids 18 x 32 and 24 x 24, a tenth of the steps of base, each 2.2 times as expensive by arithmetic:

    python -m train.pretrain base_resadapt --init base --data gs://BUCKET/shards --workdir gs://BUCKET/runs/base_resadapt

The published finetuning starts from these weights.
"""

from __future__ import annotations

from train.configs import base
from train.configs.resolution import adapted

CONFIG = adapted(base.CONFIG)
