"""The compiled kernel of the alignment: dynamic time warping in a band around the diagonal.

It is a separate module so that only code that aligns imports it, and with it the compiler.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def back_steps(costs: np.ndarray, columns: int) -> np.ndarray:
    """Return the step that reached each cell: 0 diagonal, 1 from the row above, 2 from the column before.

    Ties are resolved in this order.
    """
    rows, width = costs.shape
    band = width // 2
    far = np.int64(1) << 60
    steps = np.zeros((rows, width), np.uint8)
    above = np.full(width + 1, far, np.int64)
    for i in range(rows):
        here = np.full(width + 1, far, np.int64)
        for k in range(width):
            j = i - band + k
            if j < 0 or j >= columns:
                continue
            if i == 0 and j == 0:
                here[k] = costs[i, k]
                continue
            best, step = above[k], 0
            if above[k + 1] < best:
                best, step = above[k + 1], 1
            if k > 0 and here[k - 1] < best:
                best, step = here[k - 1], 2
            here[k] = min(best + costs[i, k], far)
            steps[i, k] = step
        above = here
    return steps
