"""Task heads: masked-token prediction and the pooler; a classifier is one dense layer of `bert`."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.dropout import Dropout
from eelbert_jax.model.layers import dense, gelu, layer_norm

DecoderInputs = tuple[jax.Array, jax.Array, jax.Array]
"""Features [..., D] in the computation type, decoder float32 [V, D], bias float32 [V]: the logits are
`features @ decoder.T + bias`."""


class PredictionTransform(nn.Module):
    """Dense, GELU, LayerNorm. Source: BERT's TensorFlow code, `get_masked_lm_output`."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map [..., D] to [..., D]."""
        transformed = dense(self.config, self.config.hidden_size, "dense")(hidden)
        return layer_norm(self.config)(gelu(transformed))


class Decoder(nn.Module):
    """Own the output matrix of an MLM whose input embedding is hashed. Source: EELBERT section 3."""

    config: BertConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """Return the matrix, float32 [V, D], one row a token."""
        return self.param(
            "kernel",
            nn.initializers.truncated_normal(self.config.initializer_range),
            (self.config.vocab_size, self.config.hidden_size),
            jnp.float32,
        )


class MaskedLMPredictions(nn.Module):
    """Give the loss what it predicts tokens with: features, decoder matrix and bias."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, tied_table: jax.Array | None) -> DecoderInputs:
        """Return features of hidden states [..., D], and the decoder: the table [V, D], if there is one."""
        features = PredictionTransform(self.config, name="transform")(hidden)
        decoder = Decoder(self.config, name="decoder")() if tied_table is None else tied_table
        bias = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,), jnp.float32)
        return features, decoder, bias


class MaskedLMHead(nn.Module):
    """Hold `MaskedLMPredictions` under its published path, `cls/predictions`."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, tied_table: jax.Array | None) -> DecoderInputs:
        """Forward to `MaskedLMPredictions`."""
        return MaskedLMPredictions(self.config, name="predictions")(hidden, tied_table)


def mean_pool(hidden: jax.Array, attention_mask: jax.Array | None) -> jax.Array:
    """Return the mean over the real tokens of hidden states [B, L, D], float32 [B, D]."""
    hidden = hidden.astype(jnp.float32)
    if attention_mask is None:
        return jnp.mean(hidden, axis=1)
    kept = attention_mask[:, :, None].astype(jnp.float32)
    return jnp.sum(hidden * kept, axis=1) / jnp.sum(kept, axis=1)


def row_state(config: BertConfig, hidden: jax.Array, attention_mask: jax.Array | None) -> jax.Array:
    """Return the state that stands for a row, [B, D] of [B, L, D]: the first token's, an XLNet's last."""
    if not config.is_relative:
        return hidden[:, 0]
    if attention_mask is None:
        return hidden[:, -1]
    last = hidden.shape[1] - 1 - jnp.argmax(attention_mask[:, ::-1], axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


class Pooler(nn.Module):
    """Summarize a row: dense and tanh of the state that stands for it. Source: Devlin et al., 3.1 ("C").

    A DistilBERT's, called `pre_classifier`, has a ReLU; a RoBERTa's, part of its classifier, has dropout
    before it. Source: transformers.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, row: jax.Array, deterministic: bool) -> jax.Array:
        """Map [B, D] to [B, D]."""
        if self.config.architecture == "roberta":
            row = Dropout(self.config.hidden_dropout_prob)(row, deterministic)
        activation = nn.relu if self.config.architecture == "distilbert" else jnp.tanh
        return activation(dense(self.config, self.config.hidden_size, "dense")(row))
