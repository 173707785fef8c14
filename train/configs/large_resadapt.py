"""Large on the grids 18 x 32 and 24 x 24, a tenth of the steps of large, each 2.3 times as expensive by arithmetic:

    python -m train.pretrain large_resadapt --init large --data gs://BUCKET/shards --workdir gs://BUCKET/runs/large_resadapt

The published finetuning starts from these weights.
"""

from __future__ import annotations

from train.configs import large
from train.configs.resolution import adapted

CONFIG = adapted(large.CONFIG)
