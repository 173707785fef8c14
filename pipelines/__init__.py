"""Beam jobs and commands."""

import shards  # noqa: F401 - sets the log levels of native libraries before JAX or TensorFlow is loaded
