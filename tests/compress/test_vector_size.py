"""Vectors of fewer entries have the cosines of the longer ones."""

import dataclasses

import numpy as np
import pytest

from eelbert_jax.compress.vector_size import shorten_vectors
from eelbert_jax.errors import UserError
from support.exports import model

TEXTS = ("a cat sat", "the cat sits on a mat", "planes fly", "", "the mat", "cat")


def vectors(encoder, size):
    config, params = shorten_vectors(encoder.config, encoder.params, size)
    return dataclasses.replace(encoder, config=config, params=params).encode(TEXTS)


@pytest.fixture(scope="module")
def encoder():
    return model(sentence_size=40, hidden_size=16, num_attention_heads=2)


def test_as_many_directions_as_are_filled_keep_every_product(encoder):
    before, after = encoder.encode(TEXTS), vectors(encoder, 17)  # the width and the bias
    assert after.shape == (len(TEXTS), 17)
    np.testing.assert_allclose(after @ after.T, before @ before.T, rtol=1e-4, atol=1e-6)


def test_fewer_are_the_best_plane_of_the_projection(encoder):
    before = encoder.params["projection"]["kernel"], encoder.params["projection"]["bias"]
    stacked = np.vstack([np.asarray(part, np.float64) for part in before])
    _, params = shorten_vectors(encoder.config, encoder.params, 5)
    kept = np.vstack([params["projection"]["kernel"], params["projection"]["bias"]])
    values = np.sqrt(np.linalg.eigvalsh(stacked @ stacked.T)[::-1])  # Eckart-Young
    np.testing.assert_allclose(np.linalg.norm(kept), np.linalg.norm(values[:5]), rtol=1e-5)
    assert np.linalg.norm(kept) < 0.999 * np.linalg.norm(stacked)


def test_bad_input(encoder):
    with pytest.raises(UserError, match="from 1 to the model's 40"):
        vectors(encoder, 41)
    with pytest.raises(UserError, match="this is none"):
        vectors(model(), 8)
