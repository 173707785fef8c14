"""Golden arrays and parameters as the tests of the network and of training read them."""

import zlib

import numpy as np

DEVIATIONS = {"kernel": 0.08, "bias": 0.05, "scale": 0.1, "cls": 0.02, "embedding": 0.02}
"""Standard deviation of golden parameters by the last part of their path."""


def golden_parameter(path, shape):
    """The golden parameter of a slash-joined path: normal numbers seeded by its name."""
    leaf = path.rsplit("/", 1)[-1]
    if leaf == "contrastive_scales":
        return np.ones(shape, np.float32)
    numbers = np.random.RandomState(zlib.crc32(path.encode()) & 0x7FFFFFFF).standard_normal(shape)
    return (DEVIATIONS[leaf] * numbers + (leaf == "scale")).astype(np.float32)


def under(arrays, prefix):
    """The arrays whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
