"""BERT's dynamic masking, on the device, as a pure function of (ids, key)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

MASK_FRACTION, RANDOM_FRACTION = 0.8, 0.1
"""Of the chosen positions: shares replaced by [MASK] and by a random token. Source: Devlin et al. 3.1."""


class MaskedRows(NamedTuple):
    """Rows ready for the masked language model.

    Attributes:
      input_ids: int32 [B, L], the rows with their masked positions replaced.
      positions: int32 [B, P], ascending within a row.
      labels: int32 [B, P], the original ids at `positions`.
      weights: float32 [B, P], 1 for a real target, 0 where a row has fewer than P maskable tokens.
    """

    input_ids: jax.Array
    positions: jax.Array
    labels: jax.Array
    weights: jax.Array


def num_masked(row_length: int, mlm_probability: float) -> int:
    """Return P = ceil(mlm_probability * L), the static number of masked positions a row."""
    return math.ceil(mlm_probability * row_length)


def mask_rows(
    ids: jax.Array,
    key: jax.Array,
    *,
    num_masked: int,
    mask_id: int,
    vocab_size: int,
    special_ids: Sequence[int],
) -> MaskedRows:
    """Mask exactly `num_masked` positions of every row of `ids`, int32 [B, L], 80/10/10.

    A static P keeps every shape static, so that the softmax over V runs at P positions only. Source: Devlin
    et al. 3.1, with a random number of positions a row.
    """
    chex.assert_rank(ids, 2)
    batch, length = ids.shape
    order_key, kind_key, token_key = jax.random.split(key, 3)

    maskable = jnp.all(ids[:, :, None] != jnp.asarray(special_ids, ids.dtype)[None, None, :], axis=-1)
    scores = jnp.where(maskable, jax.random.uniform(order_key, (batch, length)), -1.0)
    _, positions = jax.lax.top_k(scores, num_masked)
    positions = jnp.sort(positions.astype(jnp.int32), axis=1)

    labels = jnp.take_along_axis(ids, positions, axis=1)
    weights = jnp.take_along_axis(maskable, positions, axis=1)
    kind = jax.random.uniform(kind_key, (batch, num_masked))
    random_ids = jax.random.randint(token_key, (batch, num_masked), 0, vocab_size, ids.dtype)
    replaced = jnp.where(kind < MASK_FRACTION + RANDOM_FRACTION, random_ids, labels)
    replaced = jnp.where(kind < MASK_FRACTION, jnp.asarray(mask_id, ids.dtype), replaced)
    replaced = jnp.where(weights, replaced, labels)
    input_ids = jax.vmap(lambda row, where, new: row.at[where].set(new))(ids, positions, replaced)
    return MaskedRows(input_ids, positions, labels, weights.astype(jnp.float32))


def mask_rows_by_index(ids: jax.Array, row_indices: jax.Array, key: jax.Array, **options) -> MaskedRows:
    """Mask each row with a key of its own, so that an evaluation's figure is that of any batch size."""
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(row_indices)
    masked = jax.vmap(lambda row, row_key: mask_rows(row[None], row_key, **options))(ids, keys)
    return jax.tree.map(lambda leaf: leaf[:, 0], masked)
