"""Fine-tuning on texts with any number of labels each: every label is decided on its own."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from eelbert_jax.datasets import multilabel
from eelbert_jax.datasets.splits import Batch, Split, predict
from eelbert_jax.objectives.classify import Classify
from eelbert_jax.training.losses import multilabel_loss


@dataclasses.dataclass(frozen=True, eq=False)
class Multilabel(Classify):
    """The objective of a fine-tuning on texts with several labels."""

    def _distance(self, outputs: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        return multilabel_loss(outputs, labels, weights)

    def predictions(self, logits_of: Callable[[Batch], Any], split: Split) -> np.ndarray:
        """Return for every example 1 for each label of probability .5 or more, else 0, int32 [n, C]."""
        return (predict(logits_of, split, self.batch_size) >= 0).astype(np.int32)

    def scores(self, predictions: Any, split: Split) -> Mapping[str, float]:
        """Return the task's metrics."""
        return multilabel.scores(self.data.task.metrics, predictions, split.labels)

    def _named(self, values: np.ndarray) -> list[list[str]]:
        return [[self.record.labels[i] for i in np.flatnonzero(row)] for row in values]
