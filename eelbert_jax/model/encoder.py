"""The BERT encoder: attention, feed-forward, layer, stack; post-LN and module names as published.

Every layer sows its hidden state and attention probabilities into "intermediates"; where nobody asks for that
collection, nothing is kept.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.config import BertConfig

HIDDEN_STATE = "hidden_state"
ATTENTION_PROBS = "attention_probs"


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


def dense(config: BertConfig, features: int, name: str | None) -> nn.Dense:
    """Return a dense layer with BERT's initialization.

    The normal is cut at two standard deviations and not rescaled, as in BERT's TensorFlow code: at
    `initializer_range=0.02` its true standard deviation is 0.0176. Source: Devlin et al., A.2.
    """
    dtype = jnp.dtype(config.dtype)
    fast = dtype == jnp.bfloat16
    return nn.Dense(
        features,
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


class ResidualOutput(nn.Module):
    """Close a sub-layer: `LayerNorm(residual + Dropout(Dense(x)))`."""

    config: BertConfig

    @nn.compact
    def __call__(self, inputs: jax.Array, residual: jax.Array, deterministic: bool) -> jax.Array:
        """Map `inputs` [B, L, *] to the width of `residual` [B, L, D] and add."""
        outputs = dense(self.config, residual.shape[-1], "dense")(inputs)
        outputs = Dropout(self.config.hidden_dropout_prob)(outputs, deterministic)
        return layer_norm(self.config)(residual + outputs)


class AttentionBlock(nn.Module):
    """Self-attention with its residual output."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, attention_mask: jax.Array | None, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to [B, L, D]."""
        mixed = SelfAttention(self.config, name="self")(hidden, attention_mask, deterministic)
        return ResidualOutput(self.config, name="output")(mixed, hidden, deterministic)


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
        self, hidden: jax.Array, attention_mask: jax.Array | None, deterministic: bool, recursion: int = 0
    ) -> jax.Array:
        """Map [B, L, D] to [B, L, D]."""
        if self.config.adapter_size is not None:
            hidden = Adapter(self.config, name=f"attention_adapter_{recursion}")(hidden)
        attended = AttentionBlock(self.config, name="attention")(hidden, attention_mask, deterministic)
        if self.config.adapter_size is not None:
            attended = Adapter(self.config, name=f"output_adapter_{recursion}")(attended)
        widened = Intermediate(self.config, name="intermediate")(attended)
        outputs = ResidualOutput(self.config, name="output")(widened, attended, deterministic)
        self.sow("intermediates", HIDDEN_STATE, outputs)
        return outputs


class Encoder(nn.Module):
    """Run `layer_0` ..., each R times; with `config.scan_layers` one compiled `layer`, stacked on axis 0."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, attention_mask: jax.Array | None, deterministic: bool) -> jax.Array:
        """Map [B, L, D] to [B, L, D]."""

        def recur(layer: EncoderLayer, hidden: jax.Array, attention_mask: jax.Array | None) -> jax.Array:
            for recursion in range(self.config.num_recursions):
                hidden = layer(hidden, attention_mask, deterministic, recursion)
            return hidden

        num_groups = self.config.num_groups
        if not self.config.scan_layers:
            for index in range(num_groups):
                hidden = recur(EncoderLayer(self.config, name=f"layer_{index}"), hidden, attention_mask)
            return hidden
        scan = nn.scan(
            lambda layer, carry, mask: (recur(layer, carry, mask), None),
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=num_groups,
        )
        hidden, _ = scan(EncoderLayer(self.config, name="layer"), hidden, attention_mask)
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
