import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import scipy.special
import sklearn.linear_model

from eelbert_jax.datasets import baselines, metrics
from eelbert_jax.datasets.baselines import NUM_COLUMNS, BagOfWords
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.tasks import GLUE_TASKS
from eelbert_jax.errors import UserError

WORDS = ("good", "bad", "film", "plot", "slow", "fine", "very", "not", "the", "a")


def texts(seed, n=120):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(n)]


def matrix(features):
    """The same features as a scipy matrix of the columns in use, with those columns."""
    ends = [*features.starts, len(features.columns)]
    whole = scipy.sparse.csr_matrix((features.values, features.columns, ends), (len(ends) - 1, NUM_COLUMNS))
    used = np.unique(features.columns)
    return whole[:, used].toarray(), used


FIRST, SECOND = texts(0), texts(1)
DENSE, USED = matrix(baselines.hash_features(FIRST, SECOND))


def test_majority():
    assert baselines.majority(np.array([1, 0, 1, 2], np.int32), 3).tolist() == [1, 1, 1]
    mean = baselines.majority(np.array([1.0, 4.0], np.float32), 2)
    assert mean.tolist() == [2.5, 2.5]
    assert metrics.degenerate(mean)


def test_two_classes_as_scikit_learn():
    labels = np.array([("good" in a) ^ ("slow" in b) for a, b in zip(FIRST, SECOND, strict=True)], np.int32)
    ours = BagOfWords.fit(FIRST, SECOND, labels, 2)
    theirs = sklearn.linear_model.LogisticRegression(fit_intercept=False, tol=1e-8, max_iter=1000)
    theirs.fit(DENSE, labels)
    # Newton's last step promised a hundred-thousandth of the loss; weights are of the order of one.
    np.testing.assert_allclose(ours.weights[USED, 0], theirs.coef_[0], atol=2e-3)
    assert not np.delete(ours.weights, USED, axis=0).any()
    np.testing.assert_array_equal(ours.predict(FIRST, SECOND), theirs.predict(DENSE))


def test_three_classes_reach_the_optimum():
    labels = np.array([("good" in a) + ("slow" in b) for a, b in zip(FIRST, SECOND, strict=True)], np.int32)

    def objective(flat):
        weights = flat.reshape(-1, 2)
        logits = np.pad(DENSE @ weights, ((0, 0), (1, 0)))
        chosen = logits[np.arange(len(labels)), labels]
        return np.sum(scipy.special.logsumexp(logits, axis=1) - chosen) + np.sum(weights**2) / 2

    ours = BagOfWords.fit(FIRST, SECOND, labels, 3)
    best = scipy.optimize.minimize(objective, np.zeros(2 * len(USED)), method="L-BFGS-B")
    assert objective(ours.weights[USED].ravel()) <= best.fun * (1 + 1e-4)
    assert set(ours.predict(FIRST, SECOND)) == {0, 1, 2}


def test_numbers_as_ridge_regression():
    numbers = np.array([a.count("good") - b.count("bad") / 2 for a, b in zip(FIRST, SECOND, strict=True)])
    ours = BagOfWords.fit(FIRST, SECOND, numbers.astype(np.float32), 0)
    theirs = sklearn.linear_model.Ridge(alpha=1.0, fit_intercept=False).fit(DENSE, numbers)
    predictions = ours.predict(FIRST, SECOND)
    assert predictions.dtype == np.float32
    np.testing.assert_allclose(predictions, theirs.predict(DENSE), atol=2e-3)


def test_it_knows_words_and_no_order():
    labels = np.array(["good" in text for text in FIRST], np.int32)
    model = BagOfWords.fit(FIRST, None, labels, 2)
    assert metrics.accuracy(model.predict(FIRST, None), labels) == 1.0
    backwards = [" ".join(reversed(text.split())) for text in FIRST]
    np.testing.assert_array_equal(model.predict(backwards, None), model.predict(FIRST, None))
    assert model.predict(["A GOOD film", "", "unseen"], None).tolist()[0] == 1


def test_the_same_bits_again():
    labels = np.array(["good" in text for text in FIRST], np.int32)
    runs = [BagOfWords.fit(FIRST, SECOND, labels, 2).weights for _ in range(2)]
    np.testing.assert_array_equal(*runs)


def test_without_examples():
    with pytest.raises(UserError, match="got none"):
        BagOfWords.fit([], None, np.zeros(0, np.int32), 2)


@pytest.mark.parametrize(
    ("name", "majority", "bag"),
    [
        ("mrpc", 0.684, 0.767),
        ("stsb", 0.0, 0.741),
        pytest.param("sst2", 0.509, 0.823, marks=pytest.mark.slow),
    ],
)
def test_on_the_official_files(name, majority, bag, data_dir):
    """Golden figures; change them with the features or the penalty, and the report's lines with them."""
    task = GLUE_TASKS[name]
    train, dev = (load_examples(task, split, glue_dir=str(data_dir / "glue")) for split in ("train", "dev"))
    score = metrics.METRICS[task.metrics[0]]
    assert score(baselines.majority(train.labels, len(dev)), dev.labels) == pytest.approx(majority, abs=1e-3)
    model = BagOfWords.fit(train.first, train.second, train.labels, len(task.labels))
    # Three examples of MRPC's 408: sums in another order may turn a few near the border.
    assert score(model.predict(dev.first, dev.second), dev.labels) == pytest.approx(bag, abs=8e-3)
