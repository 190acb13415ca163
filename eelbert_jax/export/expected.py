"""What a model says in JAX, for what it was exported to, to be held against."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from eelbert_jax.datasets.encoding import Encoded, eval_batches, gather
from eelbert_jax.inference.predict import Model, model_class
from eelbert_jax.model import bert

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def batches(encoded: Encoded, batch_size: int) -> Iterator[tuple[np.ndarray, Rows]]:
    """Yield which rows of a batch are real, bool [B], and its ids, masks and types, each [B, L]."""
    for batch in eval_batches(encoded, batch_size):
        yield batch.weights > 0, gather(encoded, batch.indices, batch.length)


def outputs(model: Model, *rows: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return "last_hidden_state" and what the head gives, by the names of an exported graph."""
    return jax.device_get(_compiled(model.config, _head(model))(model.params, model.constants, *rows))


def _head(model: Model) -> Any:
    if "projection" in model.params:
        return bert.BertForSentenceEmbedding
    if "classifier" in model.params:
        assert model.task is not None
        return model_class(model.task)
    return bert.BertForMaskedLM if "cls" in model.params else None


@functools.lru_cache(maxsize=8)
def _compiled(config: Any, head: Any) -> Callable[..., Mapping[str, jax.Array]]:
    encoder = bert.BertModel(config, with_pooler=False)

    def outputs(params: Any, constants: Any, *rows: jax.Array) -> dict[str, jax.Array]:
        of_encoder = {"params": params["bert"], "constants": constants.get("bert", {})}
        found: dict[str, Any] = {"last_hidden_state": encoder.apply(of_encoder, *rows, deterministic=True)}
        if head is not None:
            name = "sentence_embedding" if head is bert.BertForSentenceEmbedding else "logits"
            found[name] = head(config).apply({"params": params, "constants": constants}, *rows)
        return found

    return jax.jit(outputs)
