"""Print how many times its size a hostile record takes in memory."""

import resource
import sys

from test_example import HOSTILE

from shards.records import example

content = HOSTILE[sys.argv[1]]()
example.parse(b"")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
features = dict(example.parse(content))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / len(content))
