"""The network of MERLOT Reserve, its losses, inference with it and its published weights.

Needs jax, flax, numpy and msgpack only, so it also runs where TensorFlow is not installed.
"""
