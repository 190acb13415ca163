"""Token embedders behind one call, ids [B, L] -> [B, L, E]: trained tables and hashed vectors.

    table             a trained parameter, as published BERTs have it
    ngram_hash        EELBERT: nothing is trained or stored
    random_hash       the ablation: a hash of the token's id, which knows nothing of its spelling
    hash_initialized  a trained parameter whose first values are the n-gram hash's vectors

What a hashed embedder reads comes in the collection "constants", which one integer regenerates.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.reference import code_points, reference_embedding, reference_signatures
from eelbert_jax.hashing.spec import HashSpec, hash_seeds, random_hash_spec, random_signatures
from eelbert_jax.hashing.steps import embed_signatures, require_on_the_fly
from eelbert_jax.model.config import BertConfig
from eelbert_jax.vocabulary import Vocabulary

COLLECTION = "constants"


def make_token_embedder(config: BertConfig, name: str | None = None) -> nn.Module:
    """Return the embedder that `config` names, ids [B, L] -> `config.dtype` [B, L, E].

    An id outside [0, V) gives NaN, never another token's vector.
    """
    if config.embedding != "table":
        hash_of(config).widths(config.embedding_width)
    if config.has_trained_table:
        return TrainedEmbedder(config, name=name)
    if config.embedding_mode == "cached":
        return CachedHashEmbedder(config, name=name)
    require_on_the_fly(hash_of(config))
    return OnTheFlyHashEmbedder(config, name=name)


def embedding_constants(config: BertConfig, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Return what the embedder reads from the collection "constants", by name.

    Returns:
      {} for trained tables; {"table": float32 [V, E]} for a cached hash; {"signatures": uint32 [V, N', K],
        "counts": int32 [V, N']} on the fly.
    """
    if config.has_trained_table:
        return {}
    if config.embedding_mode == "cached":
        return {"table": initial_table(config, vocabulary)}
    signatures, counts = _signatures(config, vocabulary)
    return {"signatures": signatures, "counts": counts}


def initial_table(config: BertConfig, vocabulary: Vocabulary) -> np.ndarray:
    """Return all tokens' vectors, float32 [V, E]: a cached table, or the start of `hash_initialized`."""
    signatures, counts = _signatures(config, vocabulary)
    return reference_embedding(hash_of(config), signatures, counts, config.embedding_width)


def hash_of(config: BertConfig) -> HashSpec:
    """Return the hash function of the embedder: `config.hash`, or what `random_hash` makes of its seed."""
    return random_hash_spec(config.hash) if config.embedding == "random_hash" else config.hash


class CachedHashEmbedder(nn.Module):
    """Gather from the constant table "table", float32 [V, E]: for training, where memory is there."""

    config: BertConfig

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Embed ids [B, L] as [B, L, E]."""
        shape = (self.config.vocab_size, self.config.embedding_width)
        table = _constant(self, "table", shape, jnp.float32)
        return _rows(table, ids).astype(self.config.dtype)


class OnTheFlyHashEmbedder(nn.Module):
    """Project the signatures of a token's grams: 57 integers for bert-base-uncased, a table has D numbers."""

    config: BertConfig

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Embed ids [B, L] as [B, L, E]."""
        spec = hash_of(self.config)
        rows = (self.config.vocab_size, spec.num_parts)
        signatures = _constant(self, "signatures", (*rows, None), jnp.uint32)
        counts = _constant(self, "counts", rows, jnp.int32)
        seeds = jnp.asarray(hash_seeds(spec, self.config.embedding_width))
        # An id outside [0, V) has the count that "fill" gives it, which no token has, and so becomes NaN.
        grams = _rows(signatures, ids, mode="clip")
        vectors = embed_signatures(grams, _rows(counts, ids), seeds, spec)
        return vectors.astype(self.config.dtype)


class TrainedEmbedder(nn.Module):
    """Gather from a parameter "embedding", float32 [V, E], whose gradient is summed in float32.

    `hash_initialized` starts as NaN, to be replaced by `initial_table`: a start that was forgotten stops the
    training at once, where zeros would hide it. Source: EELBERT table 4.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Embed ids [B, L] as [B, L, E]."""
        start = nn.initializers.truncated_normal(self.config.initializer_range)
        if self.config.embedding == "hash_initialized":
            start = nn.initializers.constant(jnp.nan)
        shape = (self.config.vocab_size, self.config.embedding_width)
        table = self.param("embedding", start, shape, jnp.float32)
        return _rows(table, ids).astype(self.config.dtype)


def _rows(table: jax.Array, ids: jax.Array, mode: str = "fill") -> jax.Array:
    """Return rows by id; unsigned, since a gather counts negative ids from the end."""
    return jnp.take(table, ids.astype(jnp.uint32), axis=0, mode=mode)


def _signatures(config: BertConfig, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    if vocabulary.size != config.vocab_size:
        raise UserError(
            f"The vocabulary has {vocabulary.size} tokens, the model vocab_size={config.vocab_size}; use "
            f"the vocabulary that the model was made for, or set vocab_size."
        )
    if config.embedding == "random_hash":
        return random_signatures(config.hash, config.vocab_size)
    return reference_signatures(config.hash, *code_points(vocabulary.tokens))


def _constant(
    module: nn.Module, name: str, shape: tuple[int | None, ...], dtype: jax.typing.DTypeLike
) -> jax.Array:
    """Return a constant, None in `shape` any extent; `init` without constants goes on with zeros."""
    if module.is_initializing() and not module.has_variable(COLLECTION, name):
        return jnp.zeros([extent or 1 for extent in shape], dtype)
    if not module.has_variable(COLLECTION, name):
        raise UserError(
            f"The hashed embedder has no {name!r} in the collection {COLLECTION!r}; pass "
            f"{{'params': params, 'constants': constants(config, vocabulary)}} to apply."
        )
    value = jnp.asarray(module.get_variable(COLLECTION, name))
    fits = value.ndim == len(shape) and all(
        extent in (None, actual) for extent, actual in zip(shape, value.shape, strict=True)
    )
    if not fits or value.dtype != dtype:
        raise UserError(
            f"The constant {name!r} is {value.dtype} {list(value.shape)}, the model expects "
            f"{jnp.dtype(dtype)} {list(shape)}; make the constants from the model's own configuration and "
            f"vocabulary."
        )
    return jax.lax.stop_gradient(value)
