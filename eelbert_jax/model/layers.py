"""What every part of a BERT is made of: dense layer, LayerNorm, GELU."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.config import BertConfig


def _product(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """Sum over an axis of each and round to the dtype of `left`.

    XLA on a CPU multiplies bfloat16 in hardware, twice as fast, only where the result is to be float32.
    """
    dimensions = (((left_axis,), (right_axis,)), ((), ()))

    def cpu(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32).astype(
            left.dtype
        )

    def default(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dot_general(left, right, dimensions)

    return jax.lax.platform_dependent(left, right, cpu=cpu, default=default)


@jax.custom_vjp
def bfloat16_dot(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Map bfloat16 [..., D] by [D, E] to [..., E]; the cotangent stays bfloat16."""
    return _product(inputs, kernel, inputs.ndim - 1, 0)


def _bfloat16_dot_forward(inputs, kernel):
    return bfloat16_dot(inputs, kernel), (inputs, kernel)


def _bfloat16_dot_backward(factors, cotangent):
    inputs, kernel = factors
    d_inputs = _product(cotangent, kernel, cotangent.ndim - 1, 1)
    flat = (array.reshape(-1, array.shape[-1]) for array in (inputs, cotangent))
    return d_inputs, _product(*flat, 0, 0)


bfloat16_dot.defvjp(_bfloat16_dot_forward, _bfloat16_dot_backward)


def dense(config: BertConfig, features: int, name: str | None, use_bias: bool = True) -> nn.Dense:
    """Return a dense layer with BERT's initialization.

    The normal is cut at two standard deviations and not rescaled, as in BERT's TensorFlow code: at
    `initializer_range=0.02` its true standard deviation is 0.0176. Source: Devlin et al., A.2.
    """
    dtype = jnp.dtype(config.dtype)
    fast = dtype == jnp.bfloat16
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        param_dtype=jnp.float32,
        dot_general=(lambda inputs, kernel, *_, **__: bfloat16_dot(inputs, kernel)) if fast else None,
        kernel_init=nn.initializers.truncated_normal(config.initializer_range),
        name=name,
    )


def layer_norm(config: BertConfig, name: str = "LayerNorm") -> nn.LayerNorm:
    """Return BERT's LayerNorm, with statistics in float32 by two passes.

    With an epsilon of 1e-12 the cancellation in `E[x^2] - E[x]^2` would be divided by nearly nothing.
    """
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.float32,
        use_fast_variance=False,
        name=name,
    )


def gelu(inputs: jax.Array) -> jax.Array:
    """Return the exact GELU, inside in float32; by erf: `nn.gelu`'s erfc is three times as slow on a CPU."""
    wide = inputs.astype(jnp.float32)
    return (wide * (0.5 * (1.0 + jax.lax.erf(wide * 0.5**0.5)))).astype(inputs.dtype)
