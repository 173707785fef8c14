"""Read batches until killed, and print the digest and the state after each."""

import json
import sys

from test_reader_faults import CONFIG, digest

from shards.reader import PretrainingReader

reader = PretrainingReader(sys.argv[1], CONFIG, 2, seed=6)
if len(sys.argv) > 2:
    reader.restore(json.loads(sys.argv[2]))
for batch in reader:
    print(json.dumps([digest(batch), reader.state()]), flush=True)
