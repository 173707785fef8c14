"""Training: loops, optimizer, sharding over a mesh, checkpoints and tasks."""
