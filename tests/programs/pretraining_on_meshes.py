"""Train three steps on each mesh of a list and print the losses as JSON."""

import dataclasses
import json
import sys

import jax
import numpy as np

from model.config import TINY
from train import config, mesh, step

small = dataclasses.replace(TINY, segments=2, sequence_length=168, spans_to_include=2)
optimizer = config.OptimizerConfig(total_steps=10, warmup_steps=1)
run = config.TrainConfig(small, optimizer, batch_size=8)
with np.load(sys.argv[1]) as arrays:
    batch = dict(arrays)
found = {}
for devices, *axes in json.loads(sys.argv[2]):
    each = dataclasses.replace(run, mesh=config.MeshConfig(*axes))
    laid = mesh.make_mesh(each.mesh, jax.devices()[:devices])
    state, once, losses = step.initial_state(each, laid), step.make_step(each, laid), []
    for _ in range(3):
        state, metrics = once(state, mesh.to_devices(laid, batch))
        losses.append([float(metrics[name]) for name in ("loss", "grad_norm", "chance/text_to_audio")])
    found[str((devices, *axes))] = losses
print(json.dumps(found))
