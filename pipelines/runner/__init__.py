"""Run Beam pipelines: options, local workers, Dataflow, sandboxed subprocesses and progress."""
