"""The baselines of token frequencies, against figures worked out by hand."""

import math

import numpy as np
import pytest

from eelbert_jax.corpus import statistics

SPECIAL_IDS = (0, 1, 2, 3, 4)


def test_unigram_entropy_of_even_tokens_is_the_logarithm_of_their_number():
    rows = np.array([[2, 5, 6, 7, 8, 3]] * 3, np.uint16)
    assert statistics.unigram_entropy(rows, SPECIAL_IDS) == pytest.approx(math.log(4), rel=1e-12)


def test_unigram_entropy_leaves_special_tokens_out_and_counts_the_rest():
    rows = np.array([[2, 5, 5, 5, 9, 3, 0, 0]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert statistics.unigram_entropy(rows, SPECIAL_IDS) == pytest.approx(expected, rel=1e-12)
    assert statistics.unigram_entropy(rows, ()) > expected


def test_unigram_accuracy_is_the_share_of_the_most_frequent_token():
    rows = np.array([[2, 5, 5, 5, 9, 3, 0, 0]])
    assert statistics.unigram_accuracy(rows, SPECIAL_IDS) == 0.75
    assert statistics.unigram_accuracy(np.array([[2, 2, 2, 5, 6, 3]]), SPECIAL_IDS) == 0.5
