"""Attention of an XLNet: what a token is, how far away, and of which segment."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.model.attention import Attention
from eelbert_jax.model.dropout import Dropout
from eelbert_jax.model.layers import dense


class RelativeAttention(Attention):
    """Mix the tokens of a row by content, distance and whether two are of one segment.

    Each of the three has a bias of its own in the place of the query's; projections have none. A token may
    attend to itself even where it is padding. Source: Yang et al. 2019 (XLNet), section 2.
    """

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        attention_mask: jax.Array | None,
        token_type_ids: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """Map [B, L, D] to [B, L, D]; `token_type_ids` [B, L] are compared alone; None: all are one."""
        config, (batch, length, width) = self.config, hidden.shape
        per_head = (config.num_attention_heads, width // config.num_attention_heads)

        def heads(name: str, inputs: jax.Array) -> jax.Array:
            projected = dense(config, width, name, use_bias=False)(inputs)
            return projected.reshape(*inputs.shape[:2], *per_head)

        def parameter(name: str, *shape: int) -> jax.Array:
            start = nn.initializers.truncated_normal(config.initializer_range)
            return self.param(name, start, shape, jnp.float32).astype(hidden.dtype)

        query, key, value = (heads(name, hidden) for name in ("query", "key", "value"))
        limit = config.max_position_embeddings  # and a slice, so that an export leaves the length open
        distances = jnp.asarray(distance_encodings(limit, width), hidden.dtype)
        distances = distances[None, limit - length : limit + length]
        distances = Dropout(config.hidden_dropout_prob)(distances, deterministic)
        position = heads("position", distances)[0]
        segments = parameter("segment_embedding", 2, *per_head)

        def scores_of(name: str, equation: str, keys: jax.Array) -> jax.Array:
            return jnp.einsum(equation, query + parameter(f"{name}_bias", *per_head)[None, None], keys)

        scores = scores_of("content", "blhk,bmhk->bhlm", key)
        scores += _by_key(scores_of("position", "blhk,phk->bhlp", position))
        by_segment = scores_of("segment", "blhk,shk->bhls", segments)
        types = jnp.zeros((batch, length), jnp.int32) if token_type_ids is None else token_type_ids
        differ = types[:, None, :, None] != types[:, None, None, :]
        scores += jnp.where(differ, by_segment[..., 1:], by_segment[..., :1])
        scores = scores.astype(jnp.float32) * per_head[1] ** -0.5
        kept = None
        if attention_mask is not None:
            kept = attention_mask[:, None, None, :] | jnp.eye(length, dtype=jnp.bool_)[None, None]
        return self.mixed(scores, kept, value, deterministic)


def distance_encodings(length: int, width: int) -> np.ndarray:
    """Return sines and cosines of the distances L, L - 1, ... 1 - L, float32 [2 L, D].

    Source: Dai et al. 2019 (Transformer-XL), appendix B; Vaswani et al. 2017, section 3.5.
    """
    angles = np.outer(np.arange(length, -length, -1), 10000.0 ** -(np.arange(0, width, 2) / width))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _by_key(scores: jax.Array) -> jax.Array:
    """Return scores of distances [B, H, L, 2 L] as scores of keys [B, H, L, L]: of i and j, that of i - j.

    Row i wants the columns L - i + j, j = 0 ... L - 1. Each begins one earlier than the row above, as rows do
    whose length is cut by one.
    """
    *leading, length, double = scores.shape
    shifted = scores.reshape(*leading, double, length)[..., 1:, :]
    return shifted.reshape(*leading, length, double - 1)[..., :length]
