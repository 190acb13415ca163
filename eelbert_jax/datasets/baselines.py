"""What a BERT has to beat to have learned anything: the most frequent label, and a bag of words.

The bag of words is a linear model over hashed words, trained to its one optimum: no seed, no rate, no epochs,
nothing tuned on the development set. It knows no order of words, so that what a BERT scores above it is what
reading brings. Leaves the scores to `metrics`.
"""

import dataclasses
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from eelbert_jax.errors import UserError

WORD = re.compile(r"\w+|[^\w\s]")
NUM_COLUMNS = 1 << 18
BIAS, OVERLAP, NUM_RESERVED = 0, 1, 2

PENALTY = 1.0
"""Half of it times the squared weights is added to the summed loss: scikit-learn's C = 1."""

NEWTON_STEPS = 30
CONJUGATE_STEPS = 200
TOLERANCE = 1e-5
"""Newton ends where its step promises less than this of the loss; the optimum is unique."""


def majority(labels: np.ndarray, num_examples: int) -> np.ndarray:
    """Return the same prediction for all: the most frequent class of training, or the mean number.

    Args:
      labels: of the training split, class ids int [n] or numbers float [n].
      num_examples: how many to predict for.

    Returns:
      int32 or float32 [num_examples].
    """
    if np.issubdtype(labels.dtype, np.floating):
        return np.full(num_examples, labels.mean(), np.float32)
    return np.full(num_examples, np.bincount(labels).argmax(), np.int32)


class Features(NamedTuple):
    """Hold a sparse matrix by rows.

    Attributes:
      starts: int64 [n], where each row begins; no row is empty.
      columns: int64 [entries], below `NUM_COLUMNS`.
      values: float64 [entries].
    """

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def times(self, weights: np.ndarray) -> np.ndarray:
        """Return the product with weights [NUM_COLUMNS, K], float64 [n, K]."""
        return np.add.reduceat(weights[self.columns] * self.values[:, None], self.starts, axis=0)

    def transposed_times(self, rows: np.ndarray) -> np.ndarray:
        """Return the product of the transpose with [n, K], float64 [NUM_COLUMNS, K]."""
        entries = np.diff(self.starts, append=len(self.columns))
        spread = np.repeat(rows, entries, axis=0) * self.values[:, None]
        return np.stack([np.bincount(self.columns, column, NUM_COLUMNS) for column in spread.T], axis=1)


def hash_features(first: Sequence[str], second: Sequence[str] | None) -> Features:
    """Return hashed word counts, each bag divided by the root of its size.

    A pair has four bags: the words of each text, those of both and those of one alone; and the share of words
    that the two have in common. Source: ours; CRC-32 is the hash.

    Args:
      first: n texts.
      second: n texts to pair them with, or None.
    """
    starts: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for i, text in enumerate(first):
        starts.append(len(columns))
        bags = [_bag(text)]
        columns.append(BIAS)
        values.append(1.0)
        if second is not None:
            bags.append(_bag(second[i]))
            a, b = bags
            both = a & b
            bags += [both, (a - b) + (b - a)]
            columns.append(OVERLAP)
            values.append(2 * both.total() / max(a.total() + b.total(), 1))
        for block, bag in enumerate(bags):
            scale = 1 / math.sqrt(max(bag.total(), 1))
            columns += [_column(word, block) for word in bag]
            values += [count * scale for count in bag.values()]
    return Features(np.array(starts), np.array(columns), np.array(values))


def _bag(text: str) -> Counter[str]:
    return Counter(WORD.findall(text.lower()))


def _column(word: str, block: int) -> int:
    return NUM_RESERVED + zlib.crc32(word.encode(), block) % (NUM_COLUMNS - NUM_RESERVED)


@dataclasses.dataclass(frozen=True)
class BagOfWords:
    """Hold a trained linear model over bags of words.

    Attributes:
      weights: float64 [NUM_COLUMNS, K]: one column for a number, else one for each class but the first, whose
        logit is 0.
      num_classes: 0 for a number.
    """

    weights: np.ndarray
    num_classes: int

    @classmethod
    def fit(
        cls, first: Sequence[str], second: Sequence[str] | None, labels: np.ndarray, num_classes: int
    ) -> "BagOfWords":
        """Train by logistic regression, or by ridge regression where the label is a number.

        Args:
          first: n texts.
          second: n texts to pair them with, or None.
          labels: class ids int [n], or numbers float [n].
          num_classes: 0 for a number.

        Raises:
          UserError: there is no example.
        """
        if not len(first):
            raise UserError("A bag of words needs training examples, got none.")
        features = hash_features(first, second)
        if not num_classes:
            return cls(_newton(features, labels[:, None].astype(np.float64), _SQUARED), 0)
        targets = (labels[:, None] == np.arange(1, num_classes)).astype(np.float64)
        return cls(_newton(features, targets, _LOGISTIC), num_classes)

    def predict(self, first: Sequence[str], second: Sequence[str] | None) -> np.ndarray:
        """Return class ids int32 [n], or numbers float32 [n]."""
        logits = hash_features(first, second).times(self.weights)
        if not self.num_classes:
            return logits[:, 0].astype(np.float32)
        return np.argmax(np.pad(logits, ((0, 0), (1, 0))), axis=1).astype(np.int32)


class _Loss(NamedTuple):
    """A convex loss of logits z [n, K] against targets [n, K], summed over examples.

    Attributes:
      value: (z, targets) -> the sum.
      mean: z -> what the targets are compared with; the gradient is mean - targets.
      curvature: (mean, direction) -> the Hessian times a direction [n, K].
    """

    value: Callable[[np.ndarray, np.ndarray], float]
    mean: Callable[[np.ndarray], np.ndarray]
    curvature: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities of the classes beside one whose logit is 0."""
    top = np.maximum(logits.max(axis=1, keepdims=True), 0)
    weights = np.exp(logits - top)
    return weights / (weights.sum(axis=1, keepdims=True) + np.exp(-top))


def _log_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    top = np.maximum(logits.max(axis=1), 0)
    total = np.exp(logits - top[:, None]).sum(axis=1) + np.exp(-top)
    return float(np.sum(np.log(total) + top) - np.sum(logits * targets))


def _softmax_curvature(mean: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return mean * (direction - np.sum(mean * direction, axis=1, keepdims=True))


_LOGISTIC = _Loss(_log_loss, _softmax, _softmax_curvature)
_SQUARED = _Loss(
    lambda logits, targets: 0.5 * float(np.sum((logits - targets) ** 2)),
    lambda logits: logits,
    lambda _, direction: direction,
)


def _newton(features: Features, targets: np.ndarray, loss: _Loss) -> np.ndarray:
    """Minimise the penalised loss by Newton's method, its systems solved by conjugate gradients.

    Returns:
      float64 [NUM_COLUMNS, K].
    """

    def objective(weights: np.ndarray) -> float:
        return loss.value(features.times(weights), targets) + PENALTY / 2 * float(np.sum(weights**2))

    weights = np.zeros((NUM_COLUMNS, targets.shape[1]))
    value = objective(weights)
    for _ in range(NEWTON_STEPS):
        mean = loss.mean(features.times(weights))
        gradient = features.transposed_times(mean - targets) + PENALTY * weights

        def hessian_times(direction: np.ndarray, mean: np.ndarray = mean) -> np.ndarray:
            curved = loss.curvature(mean, features.times(direction))
            return features.transposed_times(curved) + PENALTY * direction

        step = _conjugate_gradients(hessian_times, -gradient)
        promised = -float(np.sum(gradient * step))
        while objective(weights + step) > value and promised > TOLERANCE:
            step, promised = step / 2, promised / 2
        weights = weights + step
        value = objective(weights)
        if promised < TOLERANCE * value:
            break
    return weights


def _conjugate_gradients(times: Callable[[np.ndarray], np.ndarray], right: np.ndarray) -> np.ndarray:
    """Solve times(x) = right for a positive definite map, to a thousandth of the right side's norm."""
    solution = np.zeros_like(right)
    residual, direction = right, right
    square = goal = float(np.sum(right**2))
    for _ in range(CONJUGATE_STEPS):
        if square <= 1e-6 * goal:
            break
        image = times(direction)
        length = square / float(np.sum(direction * image))
        solution = solution + length * direction
        residual = residual - length * image
        previous, square = square, float(np.sum(residual**2))
        direction = residual + square / previous * direction
    return solution
