"""What vectors score, against scikit-learn and by hand."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.metrics import ndcg_score
from sklearn.metrics.pairwise import cosine_similarity

from eelbert_jax.inference.load import load
from eelbert_jax.inference.suite import NEAREST, cosines, mean_of_hash, ndcg
from eelbert_jax.model.embeddings import initial_table
from support.models import VOCABULARY, save_pretrained


def test_ndcg_is_scikit_learns():
    random = np.random.default_rng(0)
    vectors = {name: random.normal(size=8) for name in [*"abcdefghijklmnopqrst", *"ABCDEFGHIJKLMNOPQRST"]}
    questions, passages = list("abcdefghijklmnopqrst"), list("ABCDEFGHIJKLMNOPQRST")
    right = random.permutation(20)
    for i, place in enumerate(right[:10]):  # half of the questions are near their answers
        vectors[questions[i]] = vectors[passages[place]] + random.normal(size=8)

    def vectors_of(texts):
        return np.stack([vectors[text] for text in texts])

    scores = cosine_similarity(vectors_of(questions), vectors_of(passages))
    expected = ndcg_score(np.eye(20)[right], scores, k=NEAREST)
    assert 0.3 < expected < 0.9
    assert ndcg(vectors_of, questions, passages, right) == pytest.approx(expected)
    assert ndcg(lambda texts: csr_matrix(vectors_of(texts)), questions, passages, right) == pytest.approx(
        expected
    )
    assert ndcg(vectors_of, questions, passages, np.roll(right, 1)) < expected / 2


def test_cosines_of_sparse_vectors_are_those_of_dense_ones():
    first, second = np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[4.0, 3.0], [1.0, 0.0]])
    assert cosines(first, second) == pytest.approx([0.96, 0])
    assert cosines(csr_matrix(first), csr_matrix(second)) == pytest.approx([0.96, 0])


def test_the_mean_of_a_hash_is_that_of_the_tokens_vectors(tmp_path):
    model = load(save_pretrained(tmp_path))
    table = initial_table(model.config, VOCABULARY)
    found = mean_of_hash(model)(["the file opens", ""])
    expected = table[[VOCABULARY.id_of(token) for token in ("the", "file", "opens")]].mean(axis=0)
    np.testing.assert_allclose(found, [expected, 0 * expected], atol=1e-6)
