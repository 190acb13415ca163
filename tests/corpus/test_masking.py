import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.corpus import masking

V, CLS, SEP, MASK = 1000, 2, 3, 4
OPTIONS = dict(mask_id=MASK, vocab_size=V, special_ids=(0, 1, CLS, SEP, MASK))


def rows(batch: int, length: int, seed: int = 0) -> jax.Array:
    ids = np.random.default_rng(seed).integers(10, V, (batch, length))
    ids[:, 0], ids[:, -1] = CLS, SEP
    return jnp.asarray(ids, jnp.int32)


def test_number_of_positions_is_rounded_up():
    assert masking.num_masked(128, 0.15) == 20


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31 - 1))
def test_exactly_p_positions_change_at_most_and_the_rest_stays(seed):
    ids = rows(4, 32, seed)
    masked = masking.mask_rows(ids, jax.random.key(seed), num_masked=5, **OPTIONS)
    positions = np.asarray(masked.positions)
    assert positions.shape == (4, 5)
    assert all(len(set(row)) == 5 for row in positions.tolist())
    assert np.all(np.diff(positions) > 0)
    assert not np.isin(positions, (0, 31)).any()
    untouched = np.ones((4, 32), bool)
    np.put_along_axis(untouched, positions, False, axis=1)
    np.testing.assert_array_equal(np.asarray(masked.input_ids)[untouched], np.asarray(ids)[untouched])
    np.testing.assert_array_equal(masked.labels, np.take_along_axis(np.asarray(ids), positions, axis=1))


def test_shares_are_80_10_10():
    ids = rows(2000, 34)
    masked = masking.mask_rows(ids, jax.random.key(1), num_masked=5, **OPTIONS)
    new = np.take_along_axis(np.asarray(masked.input_ids), np.asarray(masked.positions), axis=1)
    n = new.size
    share_masked = np.mean(new == MASK)
    share_kept = np.mean(new == np.asarray(masked.labels))
    # Four standard deviations of a binomial share; a random token equals its label once in V.
    assert abs(share_masked - 0.8) < 4 * np.sqrt(0.16 / n)
    assert abs(share_kept - 0.1) < 4 * np.sqrt(0.09 / n) + 1 / V
    counts = np.bincount(np.asarray(masked.positions).ravel(), minlength=34)[1:-1]
    assert counts.min() > 0.8 * counts.mean(), "some positions are hardly ever masked"


def test_short_rows_have_targets_of_weight_zero_and_are_not_touched_there():
    ids = jnp.full((1, 16), 0, jnp.int32).at[0, :4].set(jnp.asarray([CLS, 10, 11, SEP]))
    masked = masking.mask_rows(ids, jax.random.key(0), num_masked=5, **OPTIONS)
    assert float(jnp.sum(masked.weights)) == 2
    weightless = np.asarray(masked.positions)[np.asarray(masked.weights) == 0]
    np.testing.assert_array_equal(np.asarray(masked.input_ids)[0, weightless], np.asarray(ids)[0, weightless])


def test_pure_and_dynamic():
    ids = rows(4, 32)
    first, again, other = (
        masking.mask_rows(ids, jax.random.key(k), num_masked=5, **OPTIONS) for k in (0, 0, 1)
    )
    assert jnp.array_equal(first.input_ids, again.input_ids)
    assert not jnp.array_equal(first.positions, other.positions)


@pytest.mark.parametrize("batch", [1, 3])
def test_by_index_does_not_depend_on_the_batch(batch):
    ids, indices = rows(6, 32), jnp.arange(6, dtype=jnp.int32)
    whole = masking.mask_rows_by_index(ids, indices, jax.random.key(0), num_masked=5, **OPTIONS)
    parts = [
        masking.mask_rows_by_index(
            ids[i : i + batch], indices[i : i + batch], jax.random.key(0), num_masked=5, **OPTIONS
        )
        for i in range(0, 6, batch)
    ]
    for name in whole._fields:
        joined = jnp.concatenate([getattr(part, name) for part in parts])
        assert jnp.array_equal(getattr(whole, name), joined), name
    assert not jnp.array_equal(whole.positions[0], whole.positions[1])
