"""Texts with any number of labels each: how a cell of a table spells them, and how sets are scored."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from eelbert_jax.datasets.entities import precision_recall_f1
from eelbert_jax.errors import UserError


def names_in(cell: str | Sequence[str], separator: str) -> list[str]:
    """Return the labels that a cell holds, none of an empty one; "" separates nothing."""
    parts = cell if not isinstance(cell, str) else cell.split(separator) if separator else [cell]
    return [name for part in parts if (name := part.strip())]


def micro_f1(predictions: Any, truth: Any) -> float:
    """Return the F1 score of all decisions together."""
    return precision_recall_f1(*(counts.sum() for counts in _counts(predictions, truth)))["f1"]


def macro_f1(predictions: Any, truth: Any) -> float:
    """Return the mean of the labels' F1 scores, 0 for a label that neither side has."""
    return float(np.mean([scores["f1"] for scores in _of_labels(predictions, truth)]))


def exact_match(predictions: Any, truth: Any) -> float:
    """Return the share of examples whose labels are all right."""
    _counts(predictions, truth)
    return float(np.mean(np.all(predictions == truth, axis=1)))


METRICS: Mapping[str, Callable[[Any, Any], float]] = MappingProxyType(
    {"micro_f1": micro_f1, "macro_f1": macro_f1, "exact_match": exact_match}
)
"""Every score by name, as (predictions, truth), integers 0 or 1 [n, C] both, -> float."""


def scores(names: Sequence[str], predictions: Any, truth: Any) -> dict[str, float]:
    """Return the scores named, in that order."""
    return {name: METRICS[name](predictions, truth) for name in names}


def details(labels: Sequence[str], predictions: Any, truth: Any) -> dict[str, Any]:
    """Return all scores, and `per_class` precision, recall and F1, as JSON values."""
    per_class = dict(zip(labels, _of_labels(predictions, truth), strict=True))
    return {
        "labels": list(labels),
        "per_class": per_class,
        **scores(tuple(METRICS), predictions, truth),
    }


def _of_labels(predictions: Any, truth: Any) -> list[dict[str, Any]]:
    return [precision_recall_f1(*counts) for counts in zip(*_counts(predictions, truth), strict=True)]


def _counts(predictions: Any, truth: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how often each label is right, predicted and true, [C] each."""
    predictions, truth = np.asarray(predictions, np.int64), np.asarray(truth, np.int64)
    if predictions.shape != truth.shape or predictions.ndim != 2 or not predictions.size:
        raise UserError(
            f"A score of several labels needs a row of decisions for every example, got "
            f"{predictions.shape} predictions and {truth.shape} labels."
        )
    return (predictions * truth).sum(axis=0), predictions.sum(axis=0), truth.sum(axis=0)
