"""Dense layers that compute in the model's dtype and whose parameters get float32 gradients.

A matrix product in bfloat16 rounds the gradient of its kernel once on every device before the devices' sums are added.
Here the products that make gradients of parameters have float32 results, and so has whatever is summed over devices.
"""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

OUTPUT_NAME = "dense"
"""What policies of recomputation call the outputs of these layers."""


class Dense(nn.Module):
    """A linear map of the last `axes` dimensions to `features` dimensions.

    Parameters are float32: `kernel [*in, *features]` and, with `use_bias`, `bias [*features]`. They are initialized as
    flat matrices, like those of `flax.linen.DenseGeneral`.
    """

    features: tuple[int, ...]
    dtype: str
    kernel_init: nn.initializers.Initializer
    axes: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`x [..., *in]` to `[..., *features]`, in `dtype`."""
        inputs = x.shape[x.ndim - self.axes :]

        def flat_kernel(key: jax.Array) -> jax.Array:
            drawn = self.kernel_init(key, (math.prod(inputs), math.prod(self.features)), jnp.float32)
            return drawn.reshape(*inputs, *self.features)

        kernel = self.param("kernel", flat_kernel)
        bias = self.param("bias", lambda key: jnp.zeros(self.features)) if self.use_bias else None
        return checkpoint_name(affine(x.astype(self.dtype), kernel, bias, self.axes), OUTPUT_NAME)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, axes: int) -> jax.Array:
    """Contract the last `axes` dimensions of `x` with the first ones of `kernel` and add `bias`, in the dtype of `x`.

    `kernel` and `bias` are float32 and so are their gradients, to the last product.
    """
    out = _flat(x, axes) @ _matrix(kernel, axes).astype(x.dtype)
    if bias is not None:
        out = out + bias.astype(x.dtype).reshape(-1)
    return out.reshape(*out.shape[:-1], *kernel.shape[axes:])


def _affine_forward(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, axes: int):
    return affine(x, kernel, bias, axes), (x, kernel, bias)


def _affine_backward(axes: int, saved: tuple, gradient: jax.Array):
    x, kernel, bias = saved
    flat_x, matrix = _flat(x, axes), _matrix(kernel, axes)
    flat = _flat(gradient, kernel.ndim - axes)
    to_x = (flat @ matrix.astype(x.dtype).T).reshape(x.shape)
    rows = tuple(range(flat.ndim - 1))
    to_kernel = jax.lax.dot_general(flat_x, flat, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
    to_bias = None if bias is None else flat.astype(jnp.float32).sum(axis=rows).reshape(bias.shape)
    return to_x, to_kernel.reshape(kernel.shape), to_bias


def _flat(x: jax.Array, axes: int) -> jax.Array:
    """`x` with its last `axes` dimensions as one: compilers lay out matrices better than products of many axes."""
    return x.reshape(*x.shape[: x.ndim - axes], -1)


def _matrix(kernel: jax.Array, axes: int) -> jax.Array:
    return kernel.reshape(math.prod(kernel.shape[:axes]), -1)


affine.defvjp(_affine_forward, _affine_backward)
