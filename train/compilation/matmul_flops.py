"""How many operations the matrix products of a traced program take, loops and recomputation included.

XLA's cost analysis counts a loop's body once, whatever its length, so a scanned stack of layers looks like one layer.
"""

from __future__ import annotations

import math
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

_CUDNN_PRODUCTS = {
    f"dot_product_attention_{pass_}{kind}": products
    for pass_, products in (("fwd", 2), ("bwd", 5))
    for kind in ("", "_wrapper")
}
"""Products of tokens with tokens, or with scores, in a call of cuDNN's attention on `[batch, n, heads, head]`."""


def matmul_flops(program: ClosedJaxpr) -> float:
    """Count two operations per multiply and add of every `dot_general`, for the global batch."""
    return _of_jaxpr(program.jaxpr)


def _of_jaxpr(jaxpr: Jaxpr) -> float:
    return sum(map(_of_equation, jaxpr.eqns))


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _of_equation(equation: JaxprEqn) -> float:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = _shape(equation.invars[0])
        return 2.0 * math.prod(_shape(equation.outvars[0])) * math.prod(left[axis] for axis in contracted)
    if (products := _CUDNN_PRODUCTS.get(equation.primitive.name)) is not None:
        query, key = (_shape(variable) for variable in equation.invars[:2])
        return 2.0 * products * math.prod(query) * key[1]
    times = 1.0
    if equation.primitive.name == "scan":
        times = equation.params["length"]
    elif equation.primitive.name == "pallas_call":
        times = math.prod(equation.params["grid_mapping"].grid)
    elif equation.primitive.name == "shard_map":
        times = equation.params["mesh"].size
    return times * sum(_of_jaxpr(inner) for value in equation.params.values() for inner in _jaxprs(value))


def _jaxprs(value: Any) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    if isinstance(value, (tuple, list)):
        return [jaxpr for part in value for jaxpr in _jaxprs(part)]
    return []
