"""BERT below its heads: embeddings, encoder and pooler. Parameter paths are the published ones."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.errors import UserError
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.dropout import Dropout
from eelbert_jax.model.embeddings import make_token_embedder
from eelbert_jax.model.encoder import HIDDEN_STATE, Encoder
from eelbert_jax.model.heads import Pooler, row_state
from eelbert_jax.model.layers import dense, layer_norm


class BertEmbeddings(nn.Module):
    """Sum token, position and segment embeddings, LayerNorm, dropout, and a dense layer where E is not D.

    Before relative attention they are the tokens' alone, with dropout.
    """

    config: BertConfig

    def setup(self) -> None:
        """Name the parts as published."""
        self.word_embeddings = make_token_embedder(self.config, "word_embeddings")
        self.dropout = Dropout(self.config.hidden_dropout_prob)
        if self.config.is_relative:
            return
        self.position_embeddings = self._table(self.config.max_position_embeddings)
        if self.config.type_vocab_size:
            self.token_type_embeddings = self._table(self.config.type_vocab_size)
        self.norm = layer_norm(self.config)
        if self.config.embedding_width != self.config.hidden_size:
            self.projection = dense(self.config, self.config.hidden_size, "projection")

    def _table(self, num_rows: int) -> nn.Embed:
        return nn.Embed(
            num_rows,
            self.config.embedding_width,
            dtype=jnp.dtype(self.config.dtype),
            param_dtype=jnp.float32,
            embedding_init=nn.initializers.truncated_normal(self.config.initializer_range),
        )

    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array | None, deterministic: bool
    ) -> jax.Array:
        """Embed tokens [B, L] as [B, L, D]; rows longer than the position table are a `UserError`."""
        length = input_ids.shape[1]
        if length > self.config.num_positions:
            raise UserError(
                f"Rows of {length} tokens do not fit max_position_embeddings="
                f"{self.config.max_position_embeddings}, which has places for {self.config.num_positions}; "
                "shorten the rows or enlarge the position table."
            )
        if self.config.is_relative:
            embedded = self.dropout(self.word_embeddings(input_ids), deterministic)
            self.sow("intermediates", HIDDEN_STATE, embedded)
            return embedded
        # A slice, not a lookup: its gradient is no scatter.
        first = self.config.first_position
        places = self.position_embeddings.embedding[None, first : first + length].astype(self.config.dtype)
        if self.config.type_vocab_size:
            are_one = token_type_ids is None or self.config.type_vocab_size == 1
            token_types = jnp.zeros((1, 1), jnp.int32) if are_one else token_type_ids
            places += self.token_type_embeddings(token_types)
        embedded = self.word_embeddings(input_ids) + places
        embedded = self.dropout(self.norm(embedded), deterministic)
        if self.config.embedding_width != self.config.hidden_size:
            embedded = self.projection(embedded)
        self.sow("intermediates", HIDDEN_STATE, embedded)
        return embedded

    def trained_table(self) -> jax.Array | None:
        """Return the token embedding that a decoder is tied to, float32 [V, D]; None where there is none."""
        if not self.config.ties_decoder:
            return None
        return self.word_embeddings.get_variable("params", "embedding")


class BertModel(nn.Module):
    """Embeddings, encoder and, for row-level tasks, the pooler."""

    config: BertConfig
    with_pooler: bool

    def setup(self) -> None:
        """Name the parts as published."""
        self.embeddings = BertEmbeddings(self.config)
        self.encoder = Encoder(self.config)
        if self.with_pooler and self.config.pooling == "pooler":
            self.pooler = Pooler(self.config)
        if self.config.is_relative:
            self.dropout = Dropout(self.config.hidden_dropout_prob)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None,
        token_type_ids: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """Encode integers [B, L] as hidden states [B, L, D]; `with_pooler` as `config.pooling` says, [B, D].

        Args:
          attention_mask: bool [B, L], True = a real token; None = all are, at no cost.
          token_type_ids: integers [B, L]; None = all 0.
        """
        chex.assert_rank(input_ids, 2)
        chex.assert_type(input_ids, int)
        if attention_mask is not None:
            chex.assert_equal_shape([attention_mask, input_ids])
            chex.assert_type(attention_mask, bool)
        if token_type_ids is not None:
            chex.assert_equal_shape([token_type_ids, input_ids])
        hidden = self.embeddings(input_ids, token_type_ids, deterministic)
        if self.config.is_relative:
            hidden = self.encoder(hidden, attention_mask, deterministic, token_type_ids)
            hidden = self.dropout(hidden, deterministic)
        else:
            hidden = self.encoder(hidden, attention_mask, deterministic)
        if not self.with_pooler:
            return hidden
        row = row_state(self.config, hidden, attention_mask)
        return self.pooler(row, deterministic) if self.config.pooling == "pooler" else row
