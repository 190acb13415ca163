"""Dropout's bits: uniform, and different by place and by key; the mean that it keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.model.dropout import Dropout, random_uint16


def test_random_uint16_is_uniform_at_any_width():
    for width in (1, 6, 7):
        bits = np.asarray(random_uint16(jax.random.key(0), (3001, width)))
        assert bits.shape == (3001, width)
        assert bits.dtype == np.uint16
        # The mean of n uniform draws scatters by 65536 / sqrt(12 n).
        assert abs(bits.mean() - 32767.5) < 5 * 65536 / np.sqrt(12 * bits.size)
        assert np.unique(bits).size > 0.9 * min(bits.size, 3001)


def largest_correlation(bits, other):
    """Return that of uint16 [R, C] with itself a place, a word or a row further, and with another key's."""
    pairs = [(bits[:, 1:], bits[:, :-1]), (bits[1:], bits[:-1]), (bits[:, 2:], bits[:, :-2]), (bits, other)]
    return max(abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) for one, two in pairs)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_uint16_differs_by_place_and_key(impl):
    words = {"threefry2x32": 2, "rbg": 4}[impl]
    near = [jax.random.wrap_key_data(jnp.full(words, word, jnp.uint32), impl=impl) for word in (6, 7)]
    bits = [np.asarray(random_uint16(key, (512, 512)), np.float64) for key in near]
    assert largest_correlation(*bits) < 5 / 512  # the correlation of n independent draws scatters by n^-1/2
    # Negative control: a counter alone is uniform too.
    counter = np.arange(512 * 512, dtype=np.float64).reshape(512, 512) % 65536
    assert largest_correlation(counter, counter) > 0.9


def test_dropout_keeps_the_mean_and_drops_the_rate():
    inputs = jnp.ones((400, 501))
    dropped = np.asarray(Dropout(0.1).apply({}, inputs, False, rngs={"dropout": jax.random.key(0)}))
    scatter = np.sqrt(0.1 * 0.9 / dropped.size)
    assert abs((dropped == 0).mean() - 0.1) < 5 * scatter
    assert abs(dropped.mean() - 1) < 5 * scatter / 0.9
    np.testing.assert_allclose(dropped[dropped != 0], 1 / 0.9, rtol=1e-4)
