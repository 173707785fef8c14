"""Finetune three steps on two meshes and print the losses as JSON."""

import json

import jax
import numpy as np

from model.config import TINY
from model.reserve import initial_parameters
from train.config import MeshConfig, OptimizerConfig
from train.mesh import make_mesh, to_devices
from train.tasks.scoring import fresh_projection
from train.tasks.step import initial_state, make_step
from train.tasks.table import TASKS

task, rng = TASKS["vcr"], np.random.default_rng(0)
model = TINY.with_grid((2, 2))
params = {name: tree for name, tree in initial_parameters(model, jax.random.key(0)).items() if name not in task.dropped}
params["proj"] = fresh_projection(model.hidden_size, jax.random.key(1))
optimizer = OptimizerConfig(1e-3, 10, 1)
answers = rng.integers(10, 256, (8, 2, 4, 24)).astype(np.int32)
answers[..., -1] = 3
images = rng.random((8, 4, 768), np.float32)
batch = {"image": images, "answers": answers, "labels": rng.integers(0, 4, (8, 2)).astype(np.int32)}
batch["id"] = np.zeros((8, 96), np.uint8)
found = []
for devices, parts, axes in ((1, 1, (1, 1, 1)), (4, 2, (1, 2, 2))):
    mesh = make_mesh(MeshConfig(*axes), jax.devices()[:devices])
    step, state, losses = make_step(task, model, optimizer, mesh, parts), initial_state(params, optimizer, mesh), []
    for _ in range(3):
        state, metrics = step(state, to_devices(mesh, batch))
        losses.append([float(metrics[name]) for name in ("loss", "grad_norm", "accuracy/qa")])
    found.append(losses)
kernel = state.params["joint_transformer"]["layer_00"]["mlp_layer"]["intermediate"]["kernel"]
assert not kernel.sharding.is_fully_replicated
print(json.dumps(found))
