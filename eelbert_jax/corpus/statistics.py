"""What token frequencies alone can predict: the baselines that a masked language model has to beat."""

from collections.abc import Iterable

import numpy as np


def unigram_entropy(rows: np.ndarray, special_ids: Iterable[int]) -> float:
    """Return the entropy of the tokens' frequencies in nats, special tokens left out.

    No model that ignores the context can have a lower loss on these tokens, even one that knows their
    frequencies beforehand; what lies below was learned from context. Source: ours.

    Args:
      rows: integer ids [n, L].
      special_ids: ids that are never masked.
    """
    shares = _shares(rows, special_ids)
    return float(-np.sum(shares * np.log(shares)))


def unigram_accuracy(rows: np.ndarray, special_ids: Iterable[int]) -> float:
    """Return how often the most frequent token is right when it is the answer everywhere.

    Args:
      rows: integer ids [n, L].
      special_ids: ids that are never masked.
    """
    return float(np.max(_shares(rows, special_ids)))


def _shares(rows: np.ndarray, special_ids: Iterable[int]) -> np.ndarray:
    """Return the frequency of every token that occurs, special ones left out."""
    counts = np.bincount(rows.ravel())
    counts[[i for i in special_ids if i < len(counts)]] = 0
    return counts[counts > 0] / counts.sum()
