"""BERT as callers use it: backbone and a head in one Linen module.

    model = BertForMaskedLM(config)
    params = model.init(key, input_ids)["params"]
    logits = model.apply({"params": params, "constants": constants(config, vocabulary)}, input_ids)

Parameter paths are the published ones, so that import and export are a rename. A hashed token embedding
comes in the collection "constants", which no checkpoint holds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from eelbert_jax.model.attention import ATTENTION_PROBS
from eelbert_jax.model.backbone import BertModel
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.dropout import Dropout
from eelbert_jax.model.embeddings import (
    VECTORS,
    embedding_constants,
    initial_table,
    token_vectors,
)
from eelbert_jax.model.encoder import HIDDEN_STATE, unstack_layers
from eelbert_jax.model.heads import DecoderInputs, MaskedLMHead, mean_pool
from eelbert_jax.model.layers import dense
from eelbert_jax.vocabulary import Vocabulary

PROJECTION_START = 0.05
"""Scale of a sentence projection's first weights: vectors begin near zero, at distance 1 of a unit vector."""


def constants(config: BertConfig, vocabulary: Vocabulary, params: Any = None) -> dict[str, Any]:
    """Return the collection "constants": the token embedder's under its path, {} of a trained table.

    `params` are those of a model that learns nothing more: its wide hash is projected here, once.
    """
    if params is not None and config.hash_width is not None:
        projection = params["bert"]["embeddings"]["word_embeddings"]["projection"]
        of_embedder = {VECTORS: token_vectors(config, vocabulary, projection)}
    else:
        of_embedder = embedding_constants(config, vocabulary)
    return {"bert": {"embeddings": {"word_embeddings": of_embedder}}} if of_embedder else {}


def hashed_start(config: BertConfig, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the parameters that start from the hash's vectors, to be laid over those of `init`."""
    if config.embedding != "hash_initialized":
        return {}
    table = initial_table(config, vocabulary)
    return {"bert": {"embeddings": {"word_embeddings": {"embedding": table}}}}


def hash_projection(params: Any) -> Any | None:
    """Return the matrix that projects a wide hash, [W, E]; None where there is none."""
    return params["bert"]["embeddings"].get("word_embeddings", {}).get("projection")


def token_table(params: Any) -> Any:
    """Return the trained table of token embeddings, [V, E]."""
    return params["bert"]["embeddings"]["word_embeddings"]["embedding"]


def with_token_table(params: Any, table: Any) -> dict[str, Any]:
    """Return the parameters with another table."""
    embeddings = {**params["bert"]["embeddings"], "word_embeddings": {"embedding": table}}
    return {**params, "bert": {**params["bert"], "embeddings": embeddings}}


class BertForMaskedLM(nn.Module):
    """Predict tokens; the decoder is the input table where that is trained, else a matrix of its own."""

    config: BertConfig

    def setup(self) -> None:
        """Name the parts as published; there is no pooler."""
        self.bert = BertModel(self.config, with_pooler=False)
        self.cls = MaskedLMHead(self.config)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return float32 logits of every token at every position, [B, L, V]."""
        hidden = self.bert(input_ids, attention_mask, token_type_ids, deterministic)
        features, decoder, bias = self.cls(hidden, self.bert.embeddings.trained_table())
        logits = jnp.einsum(
            "bld,vd->blv", features, decoder.astype(features.dtype), preferred_element_type=jnp.float32
        )
        return logits + bias[None, None, :]

    def decoder_inputs(
        self,
        input_ids: jax.Array,
        positions: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> DecoderInputs:
        """Return what a loss at `positions`, int32 [B, P], takes to fuse the softmax over V."""
        chex.assert_rank(positions, 2)
        hidden = self.bert(input_ids, attention_mask, token_type_ids, deterministic)
        chosen = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
        return self.cls(chosen, self.bert.embeddings.trained_table())


class BertForSequenceClassification(nn.Module):
    """Label rows; one label means regression."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return float32 logits [B, num_labels]."""
        bert = BertModel(self.config, with_pooler=True, name="bert")
        pooled = bert(input_ids, attention_mask, token_type_ids, deterministic)
        pooled = Dropout(self.config.hidden_dropout_prob)(pooled, deterministic)
        return dense(self.config, self.config.num_labels, "classifier")(pooled).astype(jnp.float32)


class BertForSentenceEmbedding(nn.Module):
    """Give rows a vector each: the mean of their tokens' states, of a sentence encoder projected."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return float32 vectors [B, S], not normalized; S is D without a projection."""
        return _sentence_vectors(self.config, input_ids, attention_mask, token_type_ids, deterministic)


class BertForSentencePairs(nn.Module):
    """Label pairs by the vectors u, v of their texts: numbers by cosine, classes by (u, v, |u - v|).

    Source: Reimers & Gurevych 2019, section 3.
    """

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return float32 [B, num_labels] of rows `[CLS] a [SEP] b [SEP]`; one label is the cosine."""
        mask = jnp.ones(input_ids.shape, jnp.bool_) if attention_mask is None else attention_mask
        types = jnp.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        texts, masks = split_pairs(input_ids, mask, types)
        u, v = jnp.split(_sentence_vectors(self.config, texts, masks, None, deterministic), 2)
        if self.config.num_labels == 1:
            lengths = jnp.linalg.norm(u, axis=1) * jnp.linalg.norm(v, axis=1)
            return (jnp.sum(u * v, axis=1) / jnp.maximum(lengths, 1e-12))[:, None]
        features = jnp.concatenate([u, v, jnp.abs(u - v)], axis=1)
        features = Dropout(self.config.hidden_dropout_prob)(features, deterministic)
        return dense(self.config, self.config.num_labels, "classifier")(features).astype(jnp.float32)


def split_pairs(
    input_ids: jax.Array, attention_mask: jax.Array, token_type_ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return ids and mask [2B, L] of `[CLS] a [SEP]`, then of `[CLS] b [SEP]`, of rows [B, L] of pairs."""
    length = input_ids.shape[1]
    positions = jnp.arange(length)[None]
    is_first = attention_mask & (token_type_ids == 0)
    num_first = jnp.sum(is_first, axis=1, keepdims=True)
    num_second = jnp.sum(attention_mask, axis=1, keepdims=True) - num_first
    places = jnp.where(positions == 0, 0, jnp.minimum(positions + num_first - 1, length - 1))
    second_ids = jnp.take_along_axis(input_ids, places, axis=1)
    return (
        jnp.concatenate([input_ids, second_ids]),
        jnp.concatenate([is_first, positions <= num_second]),
    )


def _sentence_vectors(
    config: BertConfig,
    input_ids: jax.Array,
    attention_mask: jax.Array | None,
    token_type_ids: jax.Array | None,
    deterministic: bool,
) -> jax.Array:
    """Make the parts of a sentence encoder in the module that calls this, under the same names in all."""
    hidden = BertModel(config, with_pooler=False, name="bert")(
        input_ids, attention_mask, token_type_ids, deterministic
    )
    vectors = mean_pool(hidden, attention_mask)
    if config.sentence_size is None:
        return vectors
    start = nn.initializers.truncated_normal(PROJECTION_START * config.initializer_range)
    return nn.Dense(config.sentence_size, kernel_init=start, name="projection")(vectors)


class BertForTokenClassification(nn.Module):
    """Label every token; there is no pooler."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array | None = None,
        token_type_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Return float32 logits [B, L, num_labels]."""
        bert = BertModel(self.config, with_pooler=False, name="bert")
        hidden = bert(input_ids, attention_mask, token_type_ids, deterministic)
        hidden = Dropout(self.config.hidden_dropout_prob)(hidden, deterministic)
        return dense(self.config, self.config.num_labels, "classifier")(hidden).astype(jnp.float32)


def classifier(kind: str, pair_encoder: str = "cross") -> type[nn.Module]:
    """Return the module of a fine-tuned model, by the kind of its task and how it reads pairs."""
    if kind == "tag":
        return BertForTokenClassification
    return BertForSentencePairs if pair_encoder == "bi" else BertForSequenceClassification


def make_predict_step(
    model: nn.Module, sharding: jax.sharding.Sharding
) -> Callable[[Any, Any, Any], jax.Array]:
    """Return the jitted (params, constants, batch) -> float32 logits, placed by `sharding`."""

    def predict_step(params: Any, constants: Any, batch: Any) -> jax.Array:
        variables = {"params": params, "constants": constants}
        logits: Any = model.apply(variables, batch.input_ids, batch.attention_mask, batch.token_type_ids)
        return logits

    return jax.jit(predict_step, out_shardings=sharding)


class EncoderStates(NamedTuple):
    """Hidden states [B, L, D], T + 1 with the embeddings, and T probabilities [B, H, L, L] before dropout."""

    hidden_states: tuple[jax.Array, ...]
    attention_probs: tuple[jax.Array, ...]


def encoder_states(config: BertConfig, intermediates: dict[str, Any]) -> EncoderStates:
    """Read the collection "intermediates" of `model.apply(..., mutable=["intermediates"])`."""
    bert = intermediates["bert"]
    embedded = bert["embeddings"][HIDDEN_STATE][0]
    encoder = bert["encoder"]
    layers = unstack_layers(encoder) if config.scan_layers else encoder
    in_order = [layers[f"layer_{index}"] for index in range(config.num_groups)]
    return EncoderStates(
        hidden_states=(embedded, *(state for layer in in_order for state in layer[HIDDEN_STATE])),
        attention_probs=tuple(
            probs for layer in in_order for probs in layer["attention"]["self"][ATTENTION_PROBS]
        ),
    )
