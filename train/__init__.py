"""Training: loops, optimizer, sharding over a mesh, checkpoints and tasks."""

import shards  # noqa: F401 - sets the log levels of native libraries before JAX is loaded
