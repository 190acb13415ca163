"""Token embedders behind one call, ids [B, L] -> [B, L, E]: trained tables and hashed vectors.

    table             a trained parameter, as published BERTs have it
    ngram_hash        EELBERT: nothing is trained or stored
    random_hash       the ablation: a hash of the token's id, which knows nothing of its spelling
    hash_initialized  a trained parameter whose first values are the n-gram hash's vectors

A hash of W > E entries is projected by a trained matrix [W, E]: W x E parameters, where a table has V x E.
What a hashed embedder reads comes in the collection "constants", which one integer regenerates.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.reference import code_points, reference_embedding, reference_signatures
from eelbert_jax.hashing.spec import HashSpec, hash_seeds, random_hash_spec, random_signatures
from eelbert_jax.hashing.steps import embed_signatures, require_on_the_fly
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.projection import project_tokens
from eelbert_jax.subwords import Subwords
from eelbert_jax.vocabulary import Vocabulary

COLLECTION = "constants"
VECTORS = "vectors"


def make_token_embedder(config: BertConfig, name: str | None = None) -> nn.Module:
    """Return the embedder that `config` names, ids [B, L] -> `config.dtype` [B, L, E].

    An id outside [0, V) gives NaN, never another token's vector.
    """
    if config.embedding != "table":
        hash_of(config).widths(config.hash_vector_width)
    if config.has_trained_table:
        return TrainedEmbedder(config, name=name)
    if config.embedding_mode == "on_the_fly":
        require_on_the_fly(hash_of(config))
    return HashEmbedder(config, name=name)


def embedding_constants(config: BertConfig, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Return what the embedder reads from the collection "constants", by name.

    Returns:
      {} for trained tables; {"table": float32 [V, W]} for a cached hash; {"signatures": uint32 [V, N', K],
        "counts": int32 [V, N']} on the fly.
    """
    if config.has_trained_table:
        return {}
    if config.embedding_mode == "cached":
        return {"table": initial_table(config, vocabulary)}
    signatures, counts = _signatures(config, vocabulary)
    return {"signatures": signatures, "counts": counts}


def token_vectors(
    config: BertConfig, vocabulary: Vocabulary, projection: np.ndarray | jax.Array | None = None
) -> np.ndarray:
    """Return what a hashed embedder gives every token, float32 [V, E]; `projection` [W, E] of a wide hash."""
    if config.hash_width is None:
        return initial_table(config, vocabulary)
    assert projection is not None
    mode = "on_the_fly" if hash_of(config).runs_on_the_fly else "cached"  # a cached table takes V x W
    config = dataclasses.replace(config, embedding_mode=mode, dtype="float32")
    variables = {
        "params": {"projection": projection},
        COLLECTION: embedding_constants(config, vocabulary),
    }
    ids = jnp.arange(config.vocab_size)[None]
    vectors: Any = jax.jit(make_token_embedder(config).apply)(variables, ids)
    return np.asarray(vectors[0])


def initial_table(config: BertConfig, vocabulary: Vocabulary) -> np.ndarray:
    """Return all tokens' hashes, float32 [V, W]: a cached table, or the start of `hash_initialized`."""
    signatures, counts = _signatures(config, vocabulary)
    return reference_embedding(hash_of(config), signatures, counts, config.hash_vector_width)


def hash_of(config: BertConfig) -> HashSpec:
    """Return the hash function of the embedder: `config.hash`, or what `random_hash` makes of its seed."""
    return random_hash_spec(config.hash) if config.embedding == "random_hash" else config.hash


class HashEmbedder(nn.Module):
    """Read the hash's vectors and project them where they are wider than E.

    Cached, they are rows of a constant table. On the fly they are projections of a token's signatures, 57
    integers for bert-base-uncased where a table has W numbers. What `token_vectors` gave, as the constant
    "vectors", goes before both: a model that learns nothing more projects nothing.
    """

    config: BertConfig

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Embed ids [B, L] as [B, L, E]."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        if self.has_variable(COLLECTION, VECTORS):
            shape = (config.vocab_size, config.embedding_width)
            return _rows(_constant(self, VECTORS, shape, jnp.float32), ids).astype(dtype)
        read, constants = functools.partial(_hash_vectors, config), self._constants()
        if config.hash_width is None:
            return read(constants, ids).astype(dtype)
        start = nn.initializers.truncated_normal(config.initializer_range)
        shape = (config.hash_width, config.embedding_width)
        projection = self.param("projection", start, shape, jnp.float32)
        return project_tokens(read, constants, projection.astype(dtype), ids)

    def _constants(self) -> dict[str, jax.Array]:
        """Return what `embedding_constants` made."""
        config = self.config
        if config.embedding_mode == "cached":
            shape = (config.vocab_size, config.hash_vector_width)
            return {"table": _constant(self, "table", shape, jnp.float32)}
        rows = (config.vocab_size, hash_of(config).num_parts)
        return {
            "signatures": _constant(self, "signatures", (*rows, None), jnp.uint32),
            "counts": _constant(self, "counts", rows, jnp.int32),
        }


def _hash_vectors(config: BertConfig, constants: dict[str, jax.Array], ids: jax.Array) -> jax.Array:
    """Return the hash of tokens, ids [...] -> float32 [..., W]."""
    if config.embedding_mode == "cached":
        return _rows(constants["table"], ids)
    spec = hash_of(config)
    seeds = jnp.asarray(hash_seeds(spec, config.hash_vector_width))
    # An id outside [0, V) has the count that "fill" gives it, which no token has, and so becomes NaN.
    grams = _rows(constants["signatures"], ids, mode="clip")
    return embed_signatures(grams, _rows(constants["counts"], ids), seeds, spec)


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
    if isinstance(vocabulary, Subwords):
        raise UserError(
            f"The n-gram hash reads WordPiece tokens, and this vocabulary is {vocabulary.kind}: take "
            "embedding=table, or a BERT's vocabulary."
        )
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
