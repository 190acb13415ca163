import sys

import numpy as np
import pytest
import scipy.special

from eelbert_jax.datasets import baselines, metrics
from eelbert_jax.datasets.baselines import LINEAR, LinearBaseline, TagLookup
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.tasks import CLASSIFY, GLUE_TASKS, REGRESS
from eelbert_jax.errors import UserError

WORDS = ("good", "bad", "film", "plot", "slow", "fine", "very", "not", "the", "a")


def texts(seed, n=120):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(n)]


FIRST, SECOND = texts(0), texts(1)


def test_majority():
    assert baselines.majority(np.array([1, 0, 1, 2], np.int32), 3).tolist() == [1, 1, 1]
    mean = baselines.majority(np.array([1.0, 4.0], np.float32), 2)
    assert mean.tolist() == [2.5, 2.5]
    assert metrics.degenerate(mean)


def test_what_the_models_see():
    assert baselines.words_of(("A film, a plot.",)) == ["a", "a", "film", ",", "plot", "."]
    assert baselines.words_of(("a b", "b c")) == ["1 a", "1 b", "2 b", "2 c", "both b", "one a", "one c"]
    bigrams = baselines.words_and_bigrams_of(("a b", "b c c"))
    assert [gram for gram in bigrams if gram.count(" ") == 2] == ["1 a b", "2 b c", "2 c c"]
    assert baselines.words_and_bigrams_of(("a b",)) == ["a", "b", "a b"]
    assert baselines.overlap(("a b", "b c c")) == pytest.approx(2 / 5)
    assert baselines.overlap(("a b",)) == baselines.overlap(("", "")) == 0


@pytest.mark.parametrize("name", LINEAR)
def test_the_optimum_of_the_penalised_loss(name):
    """The gradient of the written-out loss is zero there."""
    labels = np.array([("good" in a) + ("slow" in b) for a, b in zip(FIRST, SECOND, strict=True)], np.int32)
    found = LinearBaseline.fit(name, FIRST, SECOND, labels, CLASSIFY)
    rows = baselines._matrix(found.vectorizer, baselines._examples(FIRST, SECOND)).toarray()
    logits = rows @ found.model.coef_.T + found.model.intercept_
    residual = scipy.special.softmax(logits, axis=1) - np.eye(3)[labels]
    gradient = residual.T @ rows + found.model.coef_
    assert np.abs(gradient).max() < 0.05 < np.abs(found.model.coef_).max()
    assert metrics.accuracy(found.predict(FIRST, SECOND), labels) > 0.8  # penalised, the rare class is missed
    assert found.num_parameters == found.model.coef_.size + 3


def test_a_bag_knows_no_order_and_bigrams_do():
    """In two halves of one length the same words stand in two orders."""
    first = ["not good but fine", "fine but not good"] * 20
    labels = np.array([0, 1] * 20, np.int32)
    accuracy = {
        name: metrics.accuracy(
            LinearBaseline.fit(name, first, None, labels, CLASSIFY).predict(first, None), labels
        )
        for name in LINEAR
    }
    assert accuracy == {"bag_of_words": 0.5, "tfidf": 1.0}


def test_numbers():
    numbers = np.array([a.count("good") - b.count("bad") / 2 for a, b in zip(FIRST, SECOND, strict=True)])
    found = LinearBaseline.fit("tfidf", FIRST, SECOND, numbers.astype(np.float32), REGRESS)
    predictions = found.predict(FIRST, SECOND)
    assert metrics.pearson(predictions, numbers) > 0.9
    again = LinearBaseline.fit("tfidf", FIRST, SECOND, numbers.astype(np.float32), REGRESS)
    np.testing.assert_array_equal(again.predict(FIRST, SECOND), predictions)


def test_a_tag_lookup():
    words = (("New", "York", "is"), ("new", "York", "New"), ("is", "is"))
    tags = (np.array([1, 2, 0]), np.array([0, 1, 1]), np.array([0, 0]))
    found = TagLookup.fit(words, tags)
    predictions = found.predict([("New", "new", "York", "unseen"), ("is",)])
    # York has two tags once each: the lower id.
    assert [row.tolist() for row in predictions] == [[1, 0, 1, 0], [0]]
    assert found.num_parameters == 5


@pytest.mark.parametrize(
    ("first", "labels", "message"),
    [(["", " "], [0, 1], "texts with words"), (["a", "b"], [1, 1], "two classes or more, got 1")],
)
def test_nothing_to_learn(first, labels, message):
    with pytest.raises(UserError, match=message):
        LinearBaseline.fit("tfidf", first, None, np.array(labels), CLASSIFY)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match=r"eelbert_jax\[baseline\]"):
        LinearBaseline.fit("tfidf", FIRST, None, np.arange(len(FIRST)), CLASSIFY)


@pytest.mark.parametrize(
    ("name", "majority", "bag", "tfidf"),
    [
        ("mrpc", 0.684, 0.767, 0.770),
        ("stsb", 0.0, 0.756, 0.755),
        pytest.param("sst2", 0.509, 0.823, 0.825, marks=pytest.mark.slow),
    ],
)
def test_on_the_official_files(name, majority, bag, tfidf, data_dir):
    """Golden figures; change them with the features or the penalty, and the report's lines with them."""
    task = GLUE_TASKS[name]
    train, dev = (load_examples(task, split, glue_dir=str(data_dir / "glue")) for split in ("train", "dev"))
    score = metrics.METRICS[task.metrics[0]]
    assert score(baselines.majority(train.labels, len(dev)), dev.labels) == pytest.approx(majority, abs=1e-3)
    for kind, expected in zip(LINEAR, (bag, tfidf), strict=True):
        model = LinearBaseline.fit(kind, train.first, train.second, train.labels, task.kind)
        # Three examples of MRPC's 408: sums in another order may turn a few near the border.
        assert score(model.predict(dev.first, dev.second), dev.labels) == pytest.approx(expected, abs=8e-3)
