"""Attention of a BERT, and what it shares with other kinds."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.dropout import Dropout
from eelbert_jax.model.layers import dense

ATTENTION_PROBS = "attention_probs"


class Attention(nn.Module):
    """What kinds of attention have in common: what follows their scores."""

    config: BertConfig

    def mixed(
        self, scores: jax.Array, kept: jax.Array | None, value: jax.Array, deterministic: bool
    ) -> jax.Array:
        """Return the sums [B, L, D] of `value` [B, L, H, D / H], weighted by the softmax of float32 scores.

        Args:
          scores: [B, H, L, L], the keys last; their softmax is sown.
          kept: bool, broadcast to scores; True = may be attended to; None = all.
        """
        if kept is not None:
            scores = jnp.where(kept, scores, jnp.finfo(jnp.float32).min)
        probs = jax.nn.softmax(scores, axis=-1)
        self.sow("intermediates", ATTENTION_PROBS, probs)
        probs = Dropout(self.config.attention_probs_dropout_prob)(probs.astype(value.dtype), deterministic)
        return jnp.einsum("bhlm,bmhk->blhk", probs, value).reshape(*value.shape[:2], -1)


class SelfAttention(Attention):
    """Mix the tokens of a row, each head by its own attention probabilities; softmax in float32."""

    @nn.compact
    def __call__(self, hidden: jax.Array, attention_mask: jax.Array | None, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to [B, L, D]; the mask is bool [B, L], True = may be attended to; None = all."""
        config = self.config
        head_width = config.hidden_size // config.num_attention_heads

        def heads(name: str) -> jax.Array:
            projected = dense(config, config.hidden_size, name)(hidden)
            return projected.reshape(*hidden.shape[:2], config.num_attention_heads, head_width)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = jnp.einsum("blhk,bmhk->bhlm", query * head_width**-0.5, key).astype(jnp.float32)
        kept = None if attention_mask is None else attention_mask[:, None, None, :]
        return self.mixed(scores, kept, value, deterministic)
