"""The ground floor: record formats, vocabulary, writing, manifest and ledger.

`records` holds the formats, `reading` what `shards.reader` is made of, `inspection` what people look at.
"""

import os

# TensorFlow and XLA read these when they are loaded, so every package whose commands load them imports this one first.
# What they report there as errors also reaches Python as an exception; oneDNN announces itself at any level, and
# tf.data makes no use of it. A value that the user has set wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
