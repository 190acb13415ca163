"""Task heads: masked-token prediction and the pooler.

A classifier is one dense layer and stands in `eelbert_jax.model.bert`. Leaves the losses to
`eelbert_jax.training.losses`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.encoder import dense, gelu, layer_norm

DecoderInputs = tuple[jax.Array, jax.Array, jax.Array]
"""Features [..., D] in the computation type, decoder float32 [V, D], bias float32 [V]."""


class PredictionTransform(nn.Module):
    """Prepare hidden states for the decoder: dense, GELU, LayerNorm.

    Source: BERT's TensorFlow code, `get_masked_lm_output`.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map [..., D] to [..., D]."""
        transformed = dense(self.config, self.config.hidden_size, "dense")(hidden)
        return layer_norm(self.config)(gelu(transformed))


class Decoder(nn.Module):
    """Own the output matrix of an MLM whose input embedding is hashed.

    Source: EELBERT, section 3 ("decoupled").
    """

    config: BertConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        """Return the matrix, float32 [V, D]: one row a token, as an embedding table has it."""
        return self.param(
            "kernel",
            nn.initializers.truncated_normal(self.config.initializer_range),
            (self.config.vocab_size, self.config.hidden_size),
            jnp.float32,
        )


class MaskedLMPredictions(nn.Module):
    """Give the loss what it needs to predict tokens: features, decoder matrix and bias."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, hidden: jax.Array, tied_table: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Transform the hidden states and name the matrix to multiply them by.

        Args:
          hidden: [..., D].
          tied_table: the input embedding, [V, D], where it is trained; None where it is hashed.

        Returns:
          Features, decoder and bias; the logits are `features @ decoder.T + bias`.
        """
        features = PredictionTransform(self.config, name="transform")(hidden)
        decoder = Decoder(self.config, name="decoder")() if tied_table is None else tied_table
        bias = self.param("bias", nn.initializers.zeros, (self.config.vocab_size,), jnp.float32)
        return features, decoder, bias


class MaskedLMHead(nn.Module):
    """Hold `MaskedLMPredictions` under its published path, `cls/predictions`."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, hidden: jax.Array, tied_table: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Forward to `MaskedLMPredictions`."""
        return MaskedLMPredictions(self.config, name="predictions")(hidden, tied_table)


class Pooler(nn.Module):
    """Summarize a row: dense and tanh of the first token's state. Source: Devlin et al., 3.1 ("C")."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map [B, L, D] to [B, D]."""
        return jnp.tanh(dense(self.config, self.config.hidden_size, "dense")(hidden[:, 0]))
