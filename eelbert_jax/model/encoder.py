"""The BERT encoder: feed-forward, layer, stack; post-LN and module names as published.

Every layer sows its hidden state and attention probabilities into "intermediates"; where nobody asks for that
collection, nothing is kept.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.attention import SelfAttention
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.dropout import Dropout
from eelbert_jax.model.layers import dense, gelu, layer_norm
from eelbert_jax.model.relative_attention import RelativeAttention

HIDDEN_STATE = "hidden_state"

Masks = tuple[jax.Array | None, jax.Array | None]
"""Attention mask and token types, both [B, L]."""


class ResidualOutput(nn.Module):
    """Close a sub-layer: `LayerNorm(residual + Dropout(Dense(x)))`."""

    config: BertConfig
    use_bias: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array, residual: jax.Array, deterministic: bool) -> jax.Array:
        """Map `inputs` [B, L, *] to the width of `residual` [B, L, D] and add."""
        outputs = dense(self.config, residual.shape[-1], "dense", self.use_bias)(inputs)
        outputs = Dropout(self.config.hidden_dropout_prob)(outputs, deterministic)
        return layer_norm(self.config)(residual + outputs)


class AttentionBlock(nn.Module):
    """Self-attention with its residual output."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        attention_mask: jax.Array | None,
        deterministic: bool,
        token_type_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Map [B, L, D] to [B, L, D]."""
        relative = self.config.is_relative
        if relative:
            attention = RelativeAttention(self.config, name="self")
            mixed = attention(hidden, attention_mask, token_type_ids, deterministic)
        else:
            mixed = SelfAttention(self.config, name="self")(hidden, attention_mask, deterministic)
        return ResidualOutput(self.config, not relative, name="output")(mixed, hidden, deterministic)


class Intermediate(nn.Module):
    """Widen to F and apply the GELU."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map [B, L, D] to [B, L, F]."""
        return gelu(dense(self.config, self.config.intermediate_size, "dense")(hidden))


class Adapter(nn.Module):
    """Bottleneck in line: `LayerNorm(Up(GELU(Down(x))) + x)`. Source: MiniALBERT section 3."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Map [B, L, D] to [B, L, D]."""
        assert self.config.adapter_size is not None
        narrow = gelu(dense(self.config, self.config.adapter_size, "down")(hidden))
        return layer_norm(self.config)(dense(self.config, hidden.shape[-1], "up")(narrow) + hidden)


class EncoderLayer(nn.Module):
    """One transformer layer: attention block, then feed-forward block, each behind its adapter, if any.

    Called R times, it is a recursion: all parameters are shared but those of the adapters.
    """

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        attention_mask: jax.Array | None,
        deterministic: bool,
        recursion: int = 0,
        token_type_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Map [B, L, D] to [B, L, D]; relative attention alone reads `token_type_ids`."""
        if self.config.adapter_size is not None:
            hidden = Adapter(self.config, name=f"attention_adapter_{recursion}")(hidden)
        attention = AttentionBlock(self.config, name="attention")
        attended = attention(hidden, attention_mask, deterministic, token_type_ids)
        if self.config.adapter_size is not None:
            attended = Adapter(self.config, name=f"output_adapter_{recursion}")(attended)
        widened = Intermediate(self.config, name="intermediate")(attended)
        if self.config.is_relative:
            widened = Dropout(self.config.hidden_dropout_prob)(widened, deterministic)
        outputs = ResidualOutput(self.config, name="output")(widened, attended, deterministic)
        self.sow("intermediates", HIDDEN_STATE, outputs)
        return outputs


class Encoder(nn.Module):
    """Run `layer_0` ..., each R times; with `config.scan_layers` one compiled `layer`, stacked on axis 0."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        hidden: jax.Array,
        attention_mask: jax.Array | None,
        deterministic: bool,
        token_type_ids: jax.Array | None = None,
    ) -> jax.Array:
        """Map [B, L, D] to [B, L, D]; relative attention alone reads `token_type_ids`."""
        masks = (attention_mask, token_type_ids)

        def recur(layer: EncoderLayer, hidden: jax.Array, masks: Masks) -> jax.Array:
            for recursion in range(self.config.num_recursions):
                hidden = layer(hidden, masks[0], deterministic, recursion, masks[1])
            return hidden

        num_groups = self.config.num_groups
        if not self.config.scan_layers:
            for index in range(num_groups):
                hidden = recur(EncoderLayer(self.config, name=f"layer_{index}"), hidden, masks)
            return hidden
        scan = nn.scan(
            lambda layer, carry, masks: (recur(layer, carry, masks), None),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=num_groups,
        )
        hidden, _ = scan(EncoderLayer(self.config, name="layer"), hidden, masks)
        return hidden


def stack_layers(encoder: dict) -> dict:
    """Turn {"layer_0": tree, ...} into {"layer": tree}, every leaf stacked on axis 0."""
    layers = [encoder[f"layer_{index}"] for index in range(len(encoder))]
    return {"layer": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def unstack_layers(encoder: dict) -> dict:
    """Undo `stack_layers`."""
    num_layers = jax.tree.leaves(encoder["layer"])[0].shape[0]
    return {
        f"layer_{index}": jax.tree.map(lambda leaf, i=index: leaf[i], encoder["layer"])
        for index in range(num_layers)
    }
