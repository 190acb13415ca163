"""Bytes that a program accesses: against XLA's own count, and by hand where that counts loops once."""

import jax
import jax.numpy as jnp
import pytest

from eelbert_jax.planning.cost import bytes_accessed

X = jax.ShapeDtypeStruct((256, 128), jnp.float32)
W = jax.ShapeDtypeStruct((128, 128), jnp.float32)
TABLE = jax.ShapeDtypeStruct((30_000, 128), jnp.float32)
IDS = jax.ShapeDtypeStruct((64,), jnp.int32)


def compiled(function, *arguments):
    return jax.jit(function).trace(*arguments).lower().compile()


def loss(w, x):
    return jnp.sum(jax.nn.softmax(jax.nn.gelu(x @ w) @ w) ** 2)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (lambda x, w: x @ w, (X, W)),
        (lambda x: jnp.tanh(x) + 1.0, (X,)),
        (jax.grad(loss), (W, X)),
    ],
)
def test_it_counts_as_the_compiler_does(function, arguments):
    program = compiled(function, *arguments)
    assert bytes_accessed(program.as_text()) == pytest.approx(
        program.cost_analysis()["bytes accessed"], rel=0.1
    )


def test_of_a_table_it_counts_the_rows_that_are_read():
    """XLA's own count of this program takes the whole table, 15 MB."""
    program = compiled(lambda table, ids: table[ids] * 2.0, TABLE, IDS)
    assert bytes_accessed(program.as_text()) == 4 * (2 * 64 * 128 + 64)


def test_a_loop_counts_as_often_as_it_runs_and_reads_one_layer_a_time():
    def scanned(x, stack):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), h), x, stack)

    def accessed(layers):
        stack = jax.ShapeDtypeStruct((layers, *W.shape), jnp.float32)
        return bytes_accessed(compiled(scanned, X, stack).as_text())

    once = bytes_accessed(compiled(lambda x, w: jnp.tanh(x @ w), X, W).as_text())
    stored = 2 * 4 * 256 * 128  # a layer's input, read and written
    assert accessed(12) > 12 * (once + stored)
    # Read whole by every layer, the stack would make this 4.
    assert accessed(24) / accessed(12) == pytest.approx(2.0, rel=0.05)


def test_what_starts_and_ends_counts_once():
    text = """HloModule step

ENTRY %main (p: f32[16]) -> f32[128] {
  %p = f32[16]{0} parameter(0)
  %copy = (f32[16]{0}, f32[16]{0}, u32[]) copy-start(%p)
  %copied = f32[16]{0} copy-done(%copy)
  %gather = (f32[16]{0}, f32[128]{0}) all-gather-start(%copied), dimensions={0}
  ROOT %gathered = f32[128]{0} all-gather-done(%gather)
}
"""
    assert bytes_accessed(text) == 4 * ((16 + 16) + (16 + 128))


def test_scratch_space_and_comments_are_passed_over():
    text = """HloModule step

ENTRY %main (p: bf16[8,8], q: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  %q = bf16[8,8]{1,0} parameter(1)
  %gemm = (bf16[8,8]{1,0}, s8[4194304]{0}) custom-call(%p, /*index=1*/%q), custom_call_target="__cublas$gemm"
  ROOT %out = bf16[8,8]{1,0} get-tuple-element(%gemm), index=0
}
"""
    assert bytes_accessed(text) == 3 * 2 * 64
