"""The network, its losses, inference and published weights: JAX and Flax, nothing of video or Beam."""
