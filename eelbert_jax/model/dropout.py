"""Dropout by a hash of the key and a counter."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zero entries at random and scale up the rest; decide an entry by 16 random bits.

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
        kept = random_below(self.make_rng("dropout"), inputs.shape, num_kept)
        return jnp.where(kept, inputs * (2**16 / num_kept), jnp.zeros_like(inputs))


def random_below(key: jax.Array, shape: tuple[int, ...], limit: int) -> jax.Array:
    """Return bools: whether 16 random bits an entry are below `limit`.

    A CPU hashes one word for two entries, where the hash is what costs. Accelerators hash one for each, where
    taking words apart costs more. So the two kinds of platform drop other entries.
    """

    def cpu(key: jax.Array) -> jax.Array:
        return random_uint16(key, shape) <= limit - 1  # 2^16 is no uint16

    def default(key: jax.Array) -> jax.Array:
        return random_words(key, shape) <= jnp.uint32((limit << 16) - 1)

    return jax.lax.platform_dependent(jax.random.key_data(key), cpu=cpu, default=default)


def random_uint16(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uniform uint16, the halves of `random_words` along the last axis."""
    *leading, width = shape
    halves = jax.lax.bitcast_convert_type(random_words(key, (*leading, -(-width // 2))), jnp.uint16)
    return halves.reshape(*leading, -1)[..., :width]


def random_words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return uniform uint32: a hash of the key's data, uint32 [2] or [4], and a counter.

    Threefry, which `jax.random.bits` takes, would be 40 % of the compilation of a fine-tuning step. Nothing
    depends on other entries, so that a batch sharded over devices draws its bits where it lives.
    """
    counter, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        counter += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
        stride *= shape[axis]
    return _mix(_mix(counter ^ key[0]) + key[1])


def _mix(words: jax.Array) -> jax.Array:
    """Permute uint32 so that each bit depends on all. Source: Wellons, "Prospecting for hash functions"."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)
