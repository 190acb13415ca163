"""Score predictions of all batches and hosts once, in float64: F1 and correlations are no means."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from eelbert_jax.datasets import multilabel
from eelbert_jax.datasets.entities import (
    OUTSIDE,
    are_entity_tags,
    entity_counts,
    entity_f1,
    precision_recall_f1,
)
from eelbert_jax.errors import UserError

Tags = Sequence[np.ndarray]
LOWER_IS_BETTER = ("mse",)


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Hold predictions by example: the mergeable state of every metric.

    Attributes:
      indices: int64 [n], the place of each example in its split.
      values: [n, ...], what was predicted for it: a class id, a number, logits.
    """

    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of_batch(cls, indices: np.ndarray, values: np.ndarray, weights: np.ndarray) -> "Predictions":
        """Take the rows of a batch whose weight is not zero; the others only fill it up."""
        real = np.asarray(weights) > 0
        return cls(np.asarray(indices, np.int64)[real], np.asarray(values)[real])

    @classmethod
    def merge(cls, parts: Iterable["Predictions"]) -> "Predictions":
        """Join the states of batches or hosts; the order does not matter."""
        parts = list(parts)
        if not parts:
            raise UserError("There are no predictions to score: the split has no example.")
        return cls(np.concatenate([p.indices for p in parts]), np.concatenate([p.values for p in parts]))

    def in_order(self, num_examples: int) -> np.ndarray:
        """Return the values [num_examples, ...] in the order of the examples.

        Raises:
          RuntimeError: an example has no prediction or several: a defect, which would make another score.
        """
        counts = np.bincount(self.indices, minlength=num_examples)
        if len(counts) > num_examples or not np.all(counts == 1):
            raise RuntimeError(
                f"{num_examples} examples have {len(self.indices)} predictions: {np.sum(counts == 0)} have "
                f"none, {np.sum(counts > 1)} have several, {np.sum(counts[num_examples:])} are of no example."
            )
        return self.values[np.argsort(self.indices)]


def accuracy(predictions: Any, labels: Any) -> float:
    """Return the share of equal class ids."""
    predictions, labels = _pair(predictions, labels)
    return float(np.mean(predictions == labels))


def f1(predictions: Any, labels: Any) -> float:
    """Return the F1 score of class 1 against 0; zero where it is neither predicted nor there."""
    predictions, labels = _pair(predictions, labels)
    if max(predictions.max(), labels.max()) > 1 or min(predictions.min(), labels.min()) < 0:
        raise UserError("F1 is of two classes, 0 and 1; choose accuracy for a task with more.")
    both = np.sum((predictions == 1) & (labels == 1))
    either = np.sum(predictions == 1) + np.sum(labels == 1)
    return float(2 * both / either) if either else 0.0


def macro_f1(predictions: Any, labels: Any) -> float:
    """Return the mean of the classes' F1 scores, over the classes that either side has."""
    predictions, labels = _pair(predictions, labels)
    classes = np.union1d(predictions, labels)
    return float(np.mean([f1(predictions == one, labels == one) for one in classes]))


def matthews_correlation(predictions: Any, labels: Any) -> float:
    """Return the Matthews correlation of any number of classes, 0 where either side knows one alone.

    Source: Matthews 1975; Gorodkin 2004 for more than two.
    """
    predictions, labels = _pair(predictions, labels)
    _, codes = np.unique(np.concatenate([predictions, labels]), return_inverse=True)
    num_classes = int(codes.max()) + 1
    predicted, true = np.split(codes, 2)
    confusion = np.bincount(true * num_classes + predicted, minlength=num_classes**2).astype(np.float64)
    confusion = confusion.reshape(num_classes, num_classes)
    total, by_label, by_prediction = confusion.sum(), confusion.sum(1), confusion.sum(0)
    covariance = np.trace(confusion) * total - by_label @ by_prediction
    spreads = (total**2 - by_label @ by_label) * (total**2 - by_prediction @ by_prediction)
    return float(covariance / np.sqrt(spreads)) if spreads else 0.0


def pearson(predictions: Any, labels: Any) -> float:
    """Return Pearson's correlation; zero where either side is constant, as Matthews' is."""
    predictions, labels = (side.astype(np.float64) for side in _pair(predictions, labels))
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    predictions, labels = (side - side.mean() for side in (predictions, labels))
    product = (predictions / np.linalg.norm(predictions)) @ (labels / np.linalg.norm(labels))
    return float(np.clip(product, -1.0, 1.0))


def spearman(predictions: Any, labels: Any) -> float:
    """Return Spearman's correlation: Pearson's of the ranks, ties at their mean rank."""
    predictions, labels = _pair(predictions, labels)
    return pearson(_ranks(predictions), _ranks(labels))


def mse(predictions: Any, labels: Any) -> float:
    """Return the mean squared error."""
    predictions, labels = (side.astype(np.float64) for side in _pair(predictions, labels))
    return float(np.mean((predictions - labels) ** 2))


def details(kind: str, labels: Sequence[str], predictions: Any, truth: Any) -> dict[str, Any]:
    """Return where a model errs, as JSON values.

    Args:
      kind: one of `tasks.KINDS`.
      labels: names of the classes or tags in the order of their ids.
      predictions: class ids or numbers [n], 0 or 1 for each of several labels [n, C], or for every sentence
        tag ids [words], negative where a word has none.
      truth: the same, the right ones.

    Returns:
      Of classes and tags `confusion` (a row a true class, a column a predicted one), `per_class` and
        `macro_f1`; of tags of entities also `per_entity`; of several labels `multilabel.details`; of numbers
        correlations, errors and means.
    """
    if kind == "regress":
        predictions, truth = (side.astype(np.float64) for side in _pair(predictions, truth))
        figures = {name: METRICS[name](predictions, truth) for name in ("pearson", "spearman", "mse")}
        figures["mean_absolute_error"] = float(np.mean(np.abs(predictions - truth)))
        return figures | {"mean_prediction": float(predictions.mean()), "mean_label": float(truth.mean())}
    if kind == "multilabel":
        return multilabel.details(labels, predictions, truth)
    if kind == "classify":
        return _class_details(labels, predictions, truth)
    found = _class_details(labels, np.concatenate(predictions), np.concatenate(truth))
    if are_entity_tags(labels):
        counts = entity_counts(_tag_names(labels, predictions), _tag_names(labels, truth))
        found["per_entity"] = {name: precision_recall_f1(*of_type) for name, of_type in counts.items()}
    return found


def _class_details(labels: Sequence[str], predictions: Any, truth: Any) -> dict[str, Any]:
    predictions, truth = _pair(predictions, truth)
    num_classes, there = len(labels), predictions >= 0
    codes = truth[there] * num_classes + predictions[there]
    confusion = np.bincount(codes, minlength=num_classes**2).reshape(num_classes, num_classes)
    support = np.bincount(truth, minlength=num_classes)
    per_class = {
        label: precision_recall_f1(confusion[i, i], confusion[:, i].sum(), support[i])
        for i, label in enumerate(labels)
    }
    return {
        "labels": list(labels),
        "confusion": confusion.tolist(),
        "per_class": per_class,
        "accuracy": float(np.trace(confusion) / len(truth)),
        "macro_f1": float(np.mean([scores["f1"] for scores in per_class.values()])),
    }


METRICS: Mapping[str, Callable[[Any, Any], float]] = MappingProxyType(
    {
        "accuracy": accuracy,
        "f1": f1,
        "macro_f1": macro_f1,
        "matthews_correlation": matthews_correlation,
        "pearson": pearson,
        "spearman": spearman,
        "mse": mse,
        "entity_f1": entity_f1,
    }
)
"""Every score by name, as (predictions, labels) -> float."""


def scores(names: Sequence[str], predictions: Any, labels: Any) -> dict[str, float]:
    """Return the scores named, in that order."""
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise UserError(f"Unknown metric {unknown[0]!r}; known: {', '.join(METRICS)}.")
    return {name: METRICS[name](predictions, labels) for name in names}


def tag_scores(
    names: Sequence[str], labels: Sequence[str], predictions: Tags, truth: Tags
) -> dict[str, float]:
    """Return the scores named: of entities over sentences, of tags over words; ids as in `details`."""
    sentences = _tag_names(labels, predictions), _tag_names(labels, truth)
    words = np.concatenate(predictions), np.concatenate(truth)
    return {name: scores((name,), *(sentences if name == "entity_f1" else words))[name] for name in names}


def _tag_names(labels: Sequence[str], tags: Tags) -> list[list[str]]:
    """Return tags by name; a word without one is in no entity."""
    return [[labels[i] if i >= 0 else OUTSIDE for i in sentence] for sentence in tags]


def degenerate(predictions: Any) -> bool:
    """Return whether all predictions are the same: one class, or one number.

    Such a run has learned nothing, whatever its score: the majority class of MRPC scores 0.68.
    """
    predictions = np.asarray(predictions)
    return bool(np.all(predictions == predictions[:1]))


def _pair(predictions: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or predictions.ndim != 1 or not predictions.size:
        raise UserError(
            f"A score needs one prediction for every label, got {predictions.shape} predictions and "
            f"{labels.shape} labels."
        )
    if not (np.all(np.isfinite(predictions)) and np.all(np.isfinite(labels))):
        raise UserError(
            "A prediction or label is NaN or infinite: the model has diverged; lower the learning rate."
        )
    return predictions, labels


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, float64 [n], equal values at the mean of theirs."""
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[codes]
