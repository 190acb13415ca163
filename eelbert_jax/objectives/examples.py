"""From encoded examples to device batches and back: what fine-tuning and prediction share."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from eelbert_jax.datasets import encoding
from eelbert_jax.datasets.metrics import Predictions
from eelbert_jax.objectives.classify import Batch
from eelbert_jax.training import sharding

LogitsOf = Callable[[Batch], jax.Array]


class Split(NamedTuple):
    """One encoded split.

    Attributes:
      encoded: n examples as token ids.
      labels: int32 [n] classes, float32 [n] numbers, for every sentence the tags of its words int32 [words],
        or None where they are hidden.
    """

    encoded: encoding.Encoded
    labels: np.ndarray | tuple[np.ndarray, ...] | None


def make_batch(split: Split, batch: encoding.BatchIndices) -> Batch:
    """Return the examples of `batch` as rows of its length; hidden labels are zeros."""
    input_ids, attention_mask, token_type_ids = encoding.gather(split.encoded, batch.indices, batch.length)
    labels, weights = np.zeros(len(batch.indices), np.int32), batch.weights
    if isinstance(split.labels, tuple):
        labels = encoding.gather_tags(split.encoded, split.labels, batch.indices, batch.length)
        weights = weights[:, None] * (labels != encoding.IGNORED)
    elif split.labels is not None:
        labels = split.labels[batch.indices]
    return Batch(input_ids, attention_mask, token_type_ids, labels, weights)


def put(batch: Batch, mesh: Mesh) -> Batch:
    """Return the batch as global arrays, rows split over the devices."""
    over_rows = sharding.Layout(mesh).rows(row_axis=0)
    return jax.tree.map(
        lambda values: sharding.global_array(lambda index: values[index], values.shape, over_rows), batch
    )


def answered(
    logits_of: LogitsOf, split: Split, batch_size: int
) -> Iterator[tuple[encoding.BatchIndices, np.ndarray]]:
    """Yield batches that hold every example once, with their logits."""
    for batch in encoding.eval_batches(split.encoded, batch_size):
        yield batch, np.asarray(logits_of(make_batch(split, batch)))


def predict(logits_of: LogitsOf, split: Split, batch_size: int) -> np.ndarray:
    """Return the logits of all examples in their order, float32 [n, C]; every example counts once."""
    parts = [
        Predictions.of_batch(batch.indices, logits, batch.weights)
        for batch, logits in answered(logits_of, split, batch_size)
    ]
    return Predictions.merge(parts).in_order(len(split.encoded))


def predict_words(logits_of: LogitsOf, split: Split, batch_size: int) -> list[np.ndarray]:
    """Return for every sentence, in order, the logits of its words, float32 [words that are left, C]."""
    found: list[np.ndarray | None] = [None] * len(split.encoded)
    for batch, logits in answered(logits_of, split, batch_size):
        real = batch.weights > 0
        indices = batch.indices[real]
        for i, of_words in zip(indices, encoding.at_words(split.encoded, indices, logits[real]), strict=True):
            assert found[i] is None
            found[i] = of_words
    in_order = [of_words for of_words in found if of_words is not None]
    assert len(in_order) == len(found)
    return in_order
