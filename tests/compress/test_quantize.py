"""Int8 weights stand for nearly the same numbers in a quarter of the bytes."""

import jax
import numpy as np
import pytest

from eelbert_jax.compress.quantize import Int8, dequantize, num_bytes, quantize, with_weights
from eelbert_jax.model import bert
from support.folders import random_params
from support.models import CONFIG


def test_a_number_moves_by_at_most_half_a_step_of_its_row():
    kernel = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    kernel[:, 2] = 0.0
    (kept,) = jax.tree.leaves(
        quantize({"dense": {"kernel": kernel}}), is_leaf=lambda leaf: isinstance(leaf, Int8)
    )
    assert kept.values.dtype == np.int8
    assert kept.scales.shape == (1, 5)  # one for each output
    found = dequantize({"kernel": kept})["kernel"]
    assert (np.abs(found - kernel) <= kept.scales / 2 * (1 + 1e-5)).all()
    np.testing.assert_array_equal(found[:, 2], 0.0)
    np.testing.assert_allclose(np.abs(found).max(axis=0), np.abs(kernel).max(axis=0), rtol=1e-6)


def test_a_token_has_a_scale_of_its_own():
    table = np.array([[1.0, -2.0], [100.0, 50.0]], np.float32)
    for path in ("embedding", "decoder"):
        tree = {"embedding": table} if path == "embedding" else {"decoder": {"kernel": table}}
        found = dequantize(quantize(tree))
        np.testing.assert_allclose(jax.tree.leaves(found)[0], table, rtol=8e-3)


def test_vectors_stay_as_they_are():
    before = random_params(bert.BertForMaskedLM(CONFIG))
    after = dequantize(quantize(before))
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    changed = {leaf.ndim for leaf, found in pairs if not np.array_equal(leaf, found)}
    assert changed == {2}


@pytest.mark.parametrize(("weights", "share"), [("float32", 1.0), ("float16", 0.5), ("int8", 0.25)])
def test_bytes(weights, share):
    matrices = {"kernel": np.ones((512, 64), np.float32)}
    scales = 4 * 64 if weights == "int8" else 0
    assert num_bytes(with_weights(matrices, weights)) == share * 512 * 64 * 4 + scales
