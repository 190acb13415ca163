"""Dropout's bits: uniform, and different by place and by key; the mean that it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.model.dropout import Dropout, random_below, random_uint16, random_words

KEY = jnp.asarray([0, 1], jnp.uint32)


def high_halves(key, shape):
    """Return the 16 bits of a word by which accelerators decide an entry."""
    return (random_words(key, shape) >> 16).astype(jnp.uint16)


BITS = pytest.mark.parametrize("draw", [random_uint16, high_halves])


@BITS
def test_bits_are_uniform_at_any_width(draw):
    for width in (1, 6, 7):
        bits = np.asarray(draw(KEY, (3001, width)))
        assert bits.shape == (3001, width)
        assert bits.dtype == np.uint16
        # The mean of n uniform draws scatters by 65536 / sqrt(12 n).
        assert abs(bits.mean() - 32767.5) < 5 * 65536 / np.sqrt(12 * bits.size)
        assert np.unique(bits).size > 0.9 * min(bits.size, 3001)


def largest_correlation(bits, other):
    """Return that of uint16 [R, C] with itself a place, a word or a row further, and with another key's."""
    pairs = [(bits[:, 1:], bits[:, :-1]), (bits[1:], bits[:-1]), (bits[:, 2:], bits[:, :-2]), (bits, other)]
    return max(abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) for one, two in pairs)


@BITS
@pytest.mark.parametrize("num_words", [2, 4])  # of JAX's two kinds of keys
def test_bits_differ_by_place_and_key(draw, num_words):
    near = [jnp.full(num_words, word, jnp.uint32) for word in (6, 7)]
    bits = [np.asarray(draw(key, (512, 512)), np.float64) for key in near]
    assert largest_correlation(*bits) < 5 / 512  # the correlation of n independent draws scatters by n^-1/2
    # Negative control: a counter alone is uniform too.
    counter = np.arange(512 * 512, dtype=np.float64).reshape(512, 512) % 65536
    assert largest_correlation(counter, counter) > 0.9


@pytest.mark.parametrize("limit", [1, 58982, 2**16])  # the last of a rate that rounds to 0
def test_each_platform_decides_by_its_bits(limit):
    key, shape = jax.random.key(3), (64, 101)
    data = jax.random.key_data(key)
    halves, words = (np.asarray(draw(data, shape), np.int64) for draw in (random_uint16, random_words))
    np.testing.assert_array_equal(random_below(key, shape, limit), halves < limit)
    np.testing.assert_array_equal(words <= (limit << 16) - 1, words >> 16 < limit)


def test_accelerators_take_no_words_apart():
    program = jax.jit(lambda key: random_below(key, (64, 101), 58982)).trace(jax.random.key(3))
    lowered = {name: program.lower(lowering_platforms=(name,)).as_text() for name in ("cpu", "tpu", "cuda")}
    assert {name for name, text in lowered.items() if "ui16" in text} == {"cpu"}


def test_dropout_keeps_the_mean_and_drops_the_rate():
    inputs = jnp.ones((400, 501))
    dropped = np.asarray(Dropout(0.1).apply({}, inputs, False, rngs={"dropout": jax.random.key(0)}))
    scatter = np.sqrt(0.1 * 0.9 / dropped.size)
    assert abs((dropped == 0).mean() - 0.1) < 5 * scatter
    assert abs(dropped.mean() - 1) < 5 * scatter / 0.9
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 0.9, rtol=1e-4)
