"""Record formats, vocabulary, shard writer, manifest, ledger and reader.

`records` has the formats, `dataset` the files of a data folder, `reading` the parts of `shards.reader`, `inspection`
statistics, verification and reports.
"""

import os

# TensorFlow and XLA read these variables when they are loaded, so every package that loads them imports this one first.
# Errors that they log also reach Python as exceptions; oneDNN logs at any level, and tf.data does not use it. A value
# that the user has set is kept.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
