"""What a model says in JAX, for what it was exported to, to be held against."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from eelbert_jax.compress.quantize import TOLERANCES
from eelbert_jax.datasets.encoding import BatchIndices, Encoded, eval_batches, gather
from eelbert_jax.datasets.tasks import MULTILABEL
from eelbert_jax.inference.predict import Model, model_class
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
Ask = Callable[[np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray]]
"""Outputs by name of ids, masks and types, each [B, L]."""
SLACK = {"last_hidden_state": 5}
"""Tolerances that an output may take: of a fine-tuned UNO, JAX's own states are 2.8e-6 from float64's."""


def batches(encoded: Encoded, batch_size: int) -> Iterator[tuple[BatchIndices, Rows]]:
    """Yield of each batch which examples it has, and its ids, masks and types, each [B, L]."""
    for batch in eval_batches(encoded, batch_size):
        yield batch, gather(encoded, batch.indices, batch.length)


def outputs(model: Model, *rows: np.ndarray) -> Mapping[str, np.ndarray]:
    """Return "last_hidden_state" and what the head gives, by the names of an exported graph."""
    return jax.device_get(computed(model)(model.params, model.constants, *rows))


def computed(model: Model) -> Callable[..., Mapping[str, jax.Array]]:
    """Return what computes `outputs` of parameters, constants and rows."""
    return _compiled(model.config, _head(model))


class Difference(NamedTuple):
    """Hold how far an export is from its model.

    Attributes:
      largest: difference of an output, relative to the largest one where that is beyond 1.
      output: the name of that output, the one that is nearest to its limit.
      changed: of `answers`, those with another class; both 0 where there are no classes.
      logits: of the rows in their order, [n, C]; None where there are none, or some for every token.
    """

    largest: float
    output: str
    changed: int
    answers: int
    logits: np.ndarray | None

    def limit(self, weights: str) -> float:
        """Return what `largest` may be with weights kept so; a NaN is no less than that."""
        return TOLERANCES[weights] * SLACK.get(self.output, 1)


def difference(model: Model, encoded: Encoded, ask: Ask) -> Difference:
    """Return how far the outputs of an export are from the model's, on all rows."""
    changed, answers = 0, 0
    largest: dict[str, float] = {}
    scales: dict[str, float] = {}
    logits: np.ndarray | None = None
    for batch, rows in batches(encoded, 8 if "cls" in model.params else 32):
        real = batch.weights > 0
        expected = outputs(model, *rows)
        for name, found in ask(*rows).items():
            kept = real[:, None] & rows[1] if found.ndim == 3 else real
            ours, theirs = expected[name][kept], found[kept]
            # NumPy's maximum keeps a NaN, Python's does not.
            largest[name] = float(np.maximum(largest.get(name, 0.0), np.abs(ours - theirs).max()))
            scales[name] = float(np.maximum(scales.get(name, 1.0), np.abs(ours).max()))
            if name == "logits" and found.ndim == 2:
                logits = (
                    np.empty((len(encoded.ids), found.shape[1]), found.dtype) if logits is None else logits
                )
                logits[batch.indices[real]] = theirs
            if name == "logits" and found.shape[-1] > 1:
                differ = _answers(model, ours) != _answers(model, theirs)
                changed += int(np.count_nonzero(differ.any(axis=-1)))
                answers += len(ours)
    relative = np.array([largest[name] / scales[name] for name in largest])
    slack = np.array([SLACK.get(name, 1) for name in largest])
    worst = int((relative / slack).argmax())  # NumPy's is a NaN's, where there is one
    return Difference(float(relative[worst]), list(largest)[worst], changed, answers, logits)


def _answers(model: Model, logits: np.ndarray) -> np.ndarray:
    """Return what logits [n, C] say: the class [n, 1], or of several labels each decision [n, C]."""
    is_multilabel = model.task is not None and model.task.kind == MULTILABEL
    return logits >= 0 if is_multilabel else logits.argmax(axis=-1)[:, None]


def vectors_of(model: Model) -> np.ndarray:
    """Return the hashed vectors of all tokens, float32 [V, E]."""
    (table,) = model.constants["bert"]["embeddings"]["word_embeddings"].values()
    return np.asarray(table)


def _head(model: Model) -> Any:
    if "projection" in model.params:
        return bert.BertForSentenceEmbedding
    if "classifier" in model.params:
        assert model.task is not None
        return model_class(model.task)
    return bert.BertForMaskedLM if "cls" in model.params else None


@functools.lru_cache(maxsize=8)
def _compiled(config: Any, head: Any) -> Callable[..., Mapping[str, jax.Array]]:
    encoder = BertModel(config, with_pooler=False)

    def outputs(params: Any, constants: Any, *rows: jax.Array) -> dict[str, jax.Array]:
        of_encoder = {"params": params["bert"], "constants": constants.get("bert", {})}
        found: dict[str, Any] = {"last_hidden_state": encoder.apply(of_encoder, *rows, deterministic=True)}
        if head is not None:
            name = "sentence_embedding" if head is bert.BertForSentenceEmbedding else "logits"
            found[name] = head(config).apply({"params": params, "constants": constants}, *rows)
        return found

    return jax.jit(outputs)
