"""Products in bfloat16: rounded once, and asked for in a form that a CPU multiplies in hardware."""

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.model.layers import bfloat16_dot, gelu


def factors(*shapes: tuple[int, ...]) -> list[jax.Array]:
    draws = np.random.default_rng(0)
    return [jnp.asarray(draws.normal(size=shape), jnp.bfloat16) for shape in shapes]


def test_a_bfloat16_product_and_its_gradients_are_those_of_float32_rounded_once():
    inputs, kernel, cotangent = factors((2, 5, 16), (16, 24), (2, 5, 24))
    outputs, backward = jax.vjp(bfloat16_dot, inputs, kernel)
    wide, wide_backward = jax.vjp(jnp.matmul, *(x.astype(jnp.float32) for x in (inputs, kernel)))
    found = (outputs, *backward(cotangent))
    expected = (wide, *wide_backward(cotangent.astype(jnp.float32)))
    for ours, reference in zip(found, expected, strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_allclose(ours.astype(jnp.float32), reference, rtol=2**-8, atol=1e-5)


def test_a_cpu_is_asked_for_float32_sums_of_bfloat16_factors():
    inputs, kernel = factors((8, 16), (16, 24))
    text = jax.jit(jax.grad(lambda *both: bfloat16_dot(*both).sum(), (0, 1))).lower(inputs, kernel).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("bf16>" in line.split("->")[0] and "f32>" in line.split("->")[1] for line in products)


def test_gelu_in_bfloat16_is_rounded_once():
    inputs = jnp.linspace(-4, 4, 1000, dtype=jnp.bfloat16)
    assert (gelu(inputs) == gelu(inputs.astype(jnp.float32)).astype(jnp.bfloat16)).all()
