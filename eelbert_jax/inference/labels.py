"""What a model says of a text, as values: a class, several labels, a number, tags, words for a mask."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Guesses = list[tuple[str, float]]
"""Tokens with their probabilities, the most probable first."""


class Label(NamedTuple):
    """Hold the class of a text; `truncated`: the model read its beginning alone."""

    label: str
    probability: float
    probabilities: dict[str, float]
    truncated: bool


class Labels(NamedTuple):
    """Hold the labels of a text, those of probability .5 or more; `truncated` as in `Label`."""

    labels: list[str]
    probabilities: dict[str, float]
    truncated: bool


class Score(NamedTuple):
    """Hold the number of a text; `truncated` as in `Label`."""

    score: float
    truncated: bool


class Tag(NamedTuple):
    """Hold the tag of a word; None for a word beyond what the model read."""

    word: str
    tag: str | None
    probability: float | None
    probabilities: dict[str, float]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over classes, float64 [n, C]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def decisions(logits: np.ndarray) -> np.ndarray:
    """Return the probability of each label on its own, float64 [n, C]."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def label_of(shares: dict[str, float], truncated: bool) -> Label:
    """Return the most probable class."""
    best = max(shares, key=shares.__getitem__)
    return Label(best, shares[best], shares, truncated)


def labels_of(shares: dict[str, float], truncated: bool) -> Labels:
    """Return the labels of probability .5 or more."""
    return Labels([label for label, share in shares.items() if share >= 0.5], shares, truncated)


def tag_of(word: str, shares: np.ndarray, labels: Sequence[str]) -> Tag:
    """Return a word's tag by its probabilities summed over windows; all zeros: it was not read."""
    total = shares.sum()
    if not total:
        return Tag(word, None, None, {})
    row = (shares / total).tolist()
    best = int(np.argmax(shares))
    return Tag(word, labels[best], row[best], dict(zip(labels, row, strict=True)))
