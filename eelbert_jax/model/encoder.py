"""The BERT encoder: attention, feed-forward, layer, stack; post-LN and module names as published.

Every layer sows its hidden state and attention probabilities into "intermediates"; where nobody asks for that
collection, nothing is kept.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.model.config import BertConfig

HIDDEN_STATE = "hidden_state"
ATTENTION_PROBS = "attention_probs"

Masks = tuple[jax.Array | None, jax.Array | None]
"""Attention mask and token types, both [B, L]."""


def _product(left: jax.Array, right: jax.Array, left_axis: int, right_axis: int) -> jax.Array:
    """Sum over an axis of each and round to the dtype of `left`.

    XLA on a CPU multiplies bfloat16 in hardware, twice as fast, only where the result is to be float32.
    """
    dimensions = (((left_axis,), (right_axis,)), ((), ()))

    def cpu(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32).astype(
            left.dtype
        )

    def default(left: jax.Array, right: jax.Array) -> jax.Array:
        return jax.lax.dot_general(left, right, dimensions)

    return jax.lax.platform_dependent(left, right, cpu=cpu, default=default)


@jax.custom_vjp
def bfloat16_dot(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """Map bfloat16 [..., D] by [D, E] to [..., E]; the cotangent stays bfloat16."""
    return _product(inputs, kernel, inputs.ndim - 1, 0)


def _bfloat16_dot_forward(inputs, kernel):
    return bfloat16_dot(inputs, kernel), (inputs, kernel)


def _bfloat16_dot_backward(factors, cotangent):
    inputs, kernel = factors
    d_inputs = _product(cotangent, kernel, cotangent.ndim - 1, 1)
    flat = (array.reshape(-1, array.shape[-1]) for array in (inputs, cotangent))
    return d_inputs, _product(*flat, 0, 0)


bfloat16_dot.defvjp(_bfloat16_dot_forward, _bfloat16_dot_backward)


def dense(config: BertConfig, features: int, name: str | None, use_bias: bool = True) -> nn.Dense:
    """Return a dense layer with BERT's initialization.

    The normal is cut at two standard deviations and not rescaled, as in BERT's TensorFlow code: at
    `initializer_range=0.02` its true standard deviation is 0.0176. Source: Devlin et al., A.2.
    """
    dtype = jnp.dtype(config.dtype)
    fast = dtype == jnp.bfloat16
    return nn.Dense(
        features,
        use_bias=use_bias,
        dtype=dtype,
        param_dtype=jnp.float32,
        dot_general=(lambda inputs, kernel, *_, **__: bfloat16_dot(inputs, kernel)) if fast else None,
        kernel_init=nn.initializers.truncated_normal(config.initializer_range),
        name=name,
    )


def layer_norm(config: BertConfig, name: str = "LayerNorm") -> nn.LayerNorm:
    """Return BERT's LayerNorm, with statistics in float32 by two passes.

    With an epsilon of 1e-12 the cancellation in `E[x^2] - E[x]^2` would be divided by nearly nothing.
    """
    return nn.LayerNorm(
        epsilon=config.layer_norm_eps,
        dtype=jnp.dtype(config.dtype),
        param_dtype=jnp.float32,
        use_fast_variance=False,
        name=name,
    )


def gelu(inputs: jax.Array) -> jax.Array:
    """Return the exact GELU, inside in float32; by erf: `nn.gelu`'s erfc is three times as slow on a CPU."""
    wide = inputs.astype(jnp.float32)
    return (wide * (0.5 * (1.0 + jax.lax.erf(wide * 0.5**0.5)))).astype(inputs.dtype)


class Dropout(nn.Module):
    """Zero entries at random and scale up the rest; draw 16 random bits an entry.

    `nn.Dropout` draws 32, which costs a tiny model a tenth of its step on a CPU. The scale is that of the
    rate rounded to a multiple of 2^-16, so the mean is kept exactly.
    """

    rate: float

    @nn.compact
    def __call__(self, inputs: jax.Array, deterministic: bool) -> jax.Array:
        """Return `inputs` with dropout applied."""
        if deterministic or self.rate == 0.0:
            return inputs
        num_kept = 2**16 - round(2**16 * self.rate)
        kept = random_uint16(self.make_rng("dropout"), inputs.shape) < num_kept
        return jnp.where(kept, inputs * (2**16 / num_kept), jnp.zeros_like(inputs))


def random_uint16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uniform uint16: the halves of a hash of the key and a counter.

    Threefry, which `jax.random.bits` takes, would be 40 % of the compilation of a fine-tuning step. The last
    axis is the one halved, so that a batch sharded over devices draws its bits where it lives.
    """
    *leading, width = shape
    first, second = jax.random.key_data(key)[:2]  # of two words, or of four
    num_words = -(-width // 2)
    counter = jax.lax.broadcasted_iota(jnp.uint32, (*leading, num_words), len(leading))
    stride = num_words
    for axis in reversed(range(len(leading))):
        counter += jax.lax.broadcasted_iota(jnp.uint32, counter.shape, axis) * jnp.uint32(stride)
        stride *= leading[axis]
    words = _mix(_mix(counter ^ first) + second)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16)
    return halves.reshape(*leading, -1)[..., :width]


def _mix(words: jax.Array) -> jax.Array:
    """Permute uint32 so that each bit depends on all. Source: Wellons, "Prospecting for hash functions"."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)


class SelfAttention(nn.Module):
    """Mix the tokens of a row, each head by its own attention probabilities; softmax in float32."""

    config: BertConfig

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
        if attention_mask is not None:
            scores = jnp.where(attention_mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        probs = jax.nn.softmax(scores, axis=-1)
        self.sow("intermediates", ATTENTION_PROBS, probs)
        probs = Dropout(config.attention_probs_dropout_prob)(probs.astype(value.dtype), deterministic)
        return jnp.einsum("bhlm,bmhk->blhk", probs, value).reshape(hidden.shape)


class RelativeAttention(nn.Module):
    """Mix the tokens of a row by content, distance and whether two are of one segment.

    Each of the three has a bias of its own in the place of the query's; projections have none. A token may
    attend to itself even where it is padding. Source: Yang et al. 2019 (XLNet), section 2.
    """

    config: BertConfig

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
        distances = jnp.asarray(distance_encodings(length, width), hidden.dtype)[None]
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
        if attention_mask is not None:
            kept = attention_mask[:, None, None, :] | jnp.eye(length, dtype=jnp.bool_)[None, None]
            scores = jnp.where(kept, scores, jnp.finfo(jnp.float32).min)
        probs = jax.nn.softmax(scores, axis=-1)
        self.sow("intermediates", ATTENTION_PROBS, probs)
        probs = Dropout(config.attention_probs_dropout_prob)(probs.astype(value.dtype), deterministic)
        return jnp.einsum("bhlm,bmhk->blhk", probs, value).reshape(hidden.shape)


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
