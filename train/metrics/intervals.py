"""Compute how certain a share of right answers is."""

from __future__ import annotations

import math

_NORMAL_95 = 1.959964


def wilson(share: float, count: float) -> tuple[float, float]:
    """Return the bounds of Wilson's 95 % interval of a share among `count` independent questions.

    SciPy's `binomtest` takes only whole numbers, and here both numbers may be fractions: equal scores share a right
    answer, and answers about one video count as fewer independent questions.
    """
    if count <= 0:
        return 0.0, 1.0
    spread = _NORMAL_95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    # Rounding may leave a bound on the wrong side of a share of 0 or 1.
    return max(min(middle - half, share), 0.0), min(max(middle + half, share), 1.0)
