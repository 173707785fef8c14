"""Runs a staged Beam graph for real, in this process: what a Dataflow worker would do, without the cloud.

python -m tests.gcs.replay pipeline.pb
"""

import sys
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

if __name__ == "__main__":
    graph = beam_runner_api_pb2.Pipeline.FromString(Path(sys.argv[1]).read_bytes())
    for environment in graph.components.environments.values():
        environment.urn = "beam:env:embedded_python:v1"
        environment.payload = b""
        del environment.dependencies[:]
    result = FnApiRunner().run_via_runner_api(graph, PipelineOptions())
    sys.exit(0 if result.wait_until_finish() == "DONE" else 1)
