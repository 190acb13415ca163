"""What a run's record says about its model: size, name, changes of its hash, number of parameters."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.model.config import SIZES, sized

COUNTED = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "embedding"),
)
NOT_COUNTED = ("num_attention_heads", "layer_norm_eps", "initializer_range", "hash", "scan_layers")
"""The fields of a model's identity: those that its number of parameters depends on, and the others."""


def size_of(model: Mapping[str, Any]) -> str | None:
    """Return the published size that a model's fields agree with, None where there is none."""
    for size, fields in SIZES.items():
        if all(name in model and model[name] == value for name, value in fields.items()):
            return size
    return None


def model_name(size: str, embedding: str) -> str:
    """Return the name that the tables use: BERT-tiny, EELBERT-mini, UNO-EELBERT, BERT-mini (random_hash)."""
    if embedding == "ngram_hash":
        return "UNO-EELBERT" if size == "uno" else f"EELBERT-{size}"
    return f"BERT-{size}" if embedding == "table" else f"BERT-{size} ({embedding})"


def hash_changes(spec: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what of a hash function is not the default, as "bucket_size=256"; of none, nothing."""
    if spec is None:
        return ()
    usual = HashSpec().to_dict()
    return tuple(
        f"{name}={value}" for name, value in spec.items() if name not in usual or usual[name] != value
    )


def published_identity(size: str, embedding: str) -> dict[str, Any]:
    """Return what a run of a published model records of it, with the vocabulary of bert-base-uncased."""
    fields = dataclasses.asdict(sized(size, embedding=embedding))
    return {name: fields[name] for name in (*COUNTED, *NOT_COUNTED)}


def parameter_counts(model: Mapping[str, Any]) -> dict[str, int]:
    """Count a BERT's parameters without building it, so that a report needs no JAX.

    Args:
      model: the model's identity as a run records it: sizes and kind of embedder, without the head.

    Returns:
      Counts by the conventions of `eelbert sizes`: "MLM" (no pooler; decoder only where tied) and "2-class".
      Empty where the identity has fields that this formula does not know, and so may be another architecture.
    """
    if set(model) != {*COUNTED, *NOT_COUNTED}:
        return {}
    v, d, layers, f, positions, types, embedding = (model[name] for name in COUNTED)
    layer_norm, square = 2 * d, d * d + d
    table = v * d if embedding in ("table", "hash_initialized") else 0
    layer = 4 * square + layer_norm + (d * f + f) + (f * d + d) + layer_norm
    encoder = table + (positions + types) * d + layer_norm + layers * layer
    return {"MLM": encoder + square + layer_norm + v, "2-class": encoder + square + 2 * d + 2}
