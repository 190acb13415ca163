"""Vectors of sentences, alone and in pairs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.model.bert import BertForSentenceEmbedding, BertForSentencePairs, constants, split_pairs
from support.models import CONFIG, VOCABULARY, params_of

FIRST, SECOND = ([5, 6, 7], [8]), ([9, 6], [10, 11, 12, 13])
CLS, SEP, PAD = VOCABULARY.cls_id, VOCABULARY.sep_id, VOCABULARY.pad_id
LENGTH = 12


def padded(rows):
    ids = np.array([row + [PAD] * (LENGTH - len(row)) for row in rows])
    return ids, np.array([[place < len(row) for place in range(LENGTH)] for row in rows])


def pairs():
    """Return ids, mask and segments of rows `[CLS] a [SEP] b [SEP]`."""
    ids, mask = padded([[CLS, *a, SEP, *b, SEP] for a, b in zip(FIRST, SECOND, strict=True)])
    starts = np.array([len(a) + 2 for a in FIRST])
    return ids, mask, (mask & (np.arange(LENGTH) >= starts[:, None])).astype(np.int32)


def apply(model, params, *args):
    variables = {"params": params, "constants": constants(model.config, VOCABULARY)}
    return np.asarray(jax.jit(model.apply)(variables, *map(jnp.asarray, args)))


def test_a_pair_is_split_into_its_texts():
    ids, mask = split_pairs(*map(jnp.asarray, pairs()))
    rows = [row[kept].tolist() for row, kept in zip(np.asarray(ids), np.asarray(mask), strict=True)]
    assert rows == [[CLS, *text, SEP] for text in (*FIRST, *SECOND)]


def test_a_pair_that_fills_its_row_is_split_too():
    row = jnp.array([[CLS, 5, SEP, 6, 7, SEP]])
    ids, mask = split_pairs(row, jnp.ones((1, 6), bool), jnp.array([[0, 0, 0, 1, 1, 1]]))
    rows = [row[kept].tolist() for row, kept in zip(np.asarray(ids), np.asarray(mask), strict=True)]
    assert rows == [[CLS, 5, SEP], [CLS, 6, 7, SEP]]


@pytest.mark.parametrize("sentence_size", [None, 24])
def test_the_cosine_of_a_pair_is_that_of_its_texts_alone(sentence_size):
    config = dataclasses.replace(CONFIG, sentence_size=sentence_size, num_labels=1)
    params = params_of(BertForSentencePairs(config))
    texts = [[CLS, *text, SEP] for text in (*FIRST, *SECOND)]
    vectors = np.stack(
        [apply(BertForSentenceEmbedding(config), params, np.array([text]))[0] for text in texts]
    )
    assert vectors.shape == (4, sentence_size or config.hidden_size)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.sum(units[:2] * units[2:], axis=1)
    ids, mask, segments = pairs()
    cosines = apply(BertForSentencePairs(config), params, ids, mask, segments)
    np.testing.assert_allclose(cosines[:, 0], expected, atol=1e-5)  # other reductions of the same sums
    elsewhere = apply(BertForSentencePairs(config), params, ids, mask, np.roll(segments, -1, axis=1) * mask)
    assert np.abs(elsewhere[:, 0] - expected).min() > 1e-4


def test_classes_read_both_vectors_and_their_difference():
    config = dataclasses.replace(CONFIG, num_labels=3)
    params = params_of(BertForSentencePairs(config))
    assert params["classifier"]["kernel"].shape == (3 * config.hidden_size, 3)
    ids, mask, segments = pairs()
    logits = apply(BertForSentencePairs(config), params, ids, mask, segments)
    texts, masks = padded([[CLS, *text, SEP] for text in (*FIRST, *SECOND)])
    u, v = np.split(apply(BertForSentenceEmbedding(config), params, texts, masks), 2)
    features = np.concatenate([u, v, np.abs(u - v)], axis=1)
    expected = features @ np.asarray(params["classifier"]["kernel"])  # its bias is 0
    np.testing.assert_allclose(logits, expected, atol=1e-4)
