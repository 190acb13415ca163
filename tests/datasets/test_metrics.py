import json

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from eelbert_jax.datasets import metrics
from eelbert_jax.datasets.metrics import METRICS, Predictions
from eelbert_jax.errors import UserError

TOLERANCE = 1e-12
"""Both sides are float64 with another order of sums."""


def two_sides(elements, dtype):
    return st.integers(1, 60).flatmap(
        lambda n: st.tuples(*[st_numpy.arrays(dtype, n, elements=elements)] * 2)
    )


# Against scikit-learn and scipy.


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=100)
@given(sides=two_sides(st.integers(0, 1), np.int32))
def test_two_classes_as_scikit_learn(sides):
    predictions, labels = sides
    assert metrics.accuracy(*sides) == sklearn.metrics.accuracy_score(labels, predictions)
    f1 = sklearn.metrics.f1_score(labels, predictions, zero_division=0.0)
    assert metrics.f1(*sides) == pytest.approx(f1, abs=TOLERANCE)
    matthews = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert metrics.matthews_correlation(*sides) == pytest.approx(matthews, abs=TOLERANCE)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(max_examples=50)
@given(sides=two_sides(st.integers(0, 4), np.int32))
def test_more_classes_as_scikit_learn(sides):
    predictions, labels = sides
    matthews = sklearn.metrics.matthews_corrcoef(labels, predictions)
    assert metrics.matthews_correlation(*sides) == pytest.approx(matthews, abs=TOLERANCE)
    macro = sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0.0)
    assert metrics.macro_f1(*sides) == pytest.approx(macro, abs=TOLERANCE)


@settings(max_examples=50)
@given(sides=two_sides(st.integers(0, 3), np.int32))
def test_details_of_classes_as_scikit_learn(sides):
    predictions, truth = sides
    found = json.loads(json.dumps(metrics.details("classify", list("abcd"), predictions, truth)))
    ids = np.arange(4)
    assert found["confusion"] == sklearn.metrics.confusion_matrix(truth, predictions, labels=ids).tolist()
    expected = sklearn.metrics.precision_recall_fscore_support(
        truth, predictions, labels=ids, zero_division=0.0
    )
    for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        figures = [found["per_class"][label][name] for label in "abcd"]
        assert figures == pytest.approx(column.tolist(), abs=TOLERANCE)
    assert found["accuracy"] == metrics.accuracy(*sides)


# Sixteenths: many ties, and no overflow or cancellation that would test the arithmetic and not the formula.
@settings(max_examples=100)
@given(sides=two_sides(st.integers(-80, 80).map(lambda i: i / 16), np.float32))
def test_correlations_as_scipy(sides):
    mse = sklearn.metrics.mean_squared_error(*(side.astype(np.float64) for side in sides))
    assert metrics.mse(*sides) == pytest.approx(mse, abs=TOLERANCE)
    if min(np.ptp(side) for side in sides) == 0:
        assert metrics.pearson(*sides) == metrics.spearman(*sides) == 0.0
        return
    wide = [side.astype(np.float64) for side in sides]
    assert metrics.pearson(*sides) == pytest.approx(scipy.stats.pearsonr(*wide).statistic, abs=TOLERANCE)
    assert metrics.spearman(*sides) == pytest.approx(scipy.stats.spearmanr(*wide).statistic, abs=TOLERANCE)


def test_correlations_of_many_unequal_numbers_as_scipy():
    rng = np.random.default_rng(0)
    labels = rng.uniform(0, 5, 1500).astype(np.float32)
    predictions = (labels + rng.normal(0, 1, 1500)).astype(np.float32)
    expected = scipy.stats.pearsonr(predictions.astype(np.float64), labels.astype(np.float64)).statistic
    assert metrics.pearson(predictions, labels) == pytest.approx(expected, abs=TOLERANCE)
    assert metrics.spearman(predictions, labels) == pytest.approx(
        scipy.stats.spearmanr(predictions, labels).statistic, abs=TOLERANCE
    )
    assert expected < 0.9, "a correlation near one would hide a difference"


def test_a_perfect_correlation_is_one_and_not_more():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    assert metrics.pearson(values, values) == pytest.approx(1.0, abs=TOLERANCE)
    assert metrics.pearson(values, values) <= 1.0
    assert metrics.spearman(-values, values) == pytest.approx(-1.0, abs=TOLERANCE)


def test_the_majority_class_of_mrpc_scores_as_in_the_papers():
    labels = np.repeat([1, 0], [279, 129])
    predictions = np.ones(408, int)
    found = metrics.scores(("accuracy", "f1", "matthews_correlation"), predictions, labels)
    assert {name: round(value, 3) for name, value in found.items()} == {
        "accuracy": 0.684,
        "f1": 0.812,
        "matthews_correlation": 0.0,
    }


def test_details_of_tags_by_hand():
    """Four words of two sentences, of which truncation cut one off; seqeval's table, counted by hand."""
    labels = ("O", "B-PER", "I-PER", "B-LOC")
    truth = [np.array([1, 2, 0]), np.array([3])]
    found = metrics.details("tag", labels, [np.array([1, 2, 3]), np.array([-1])], truth)
    assert found["confusion"] == [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found["per_class"]["B-LOC"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert found["accuracy"] == 0.5
    assert found["per_entity"] == {
        "LOC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "PER": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1},
    }
    assert "per_entity" not in metrics.details("tag", ("NOUN", "VERB"), [np.array([0])], [np.array([1])])


def test_details_of_numbers():
    found = metrics.details("regress", (), np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0]))
    assert found["mse"] == pytest.approx(2 / 3)
    assert found["mean_absolute_error"] == pytest.approx(2 / 3)
    assert (found["mean_prediction"], found["mean_label"]) == pytest.approx((7 / 3, 7 / 3))


# The state.


@settings(max_examples=50)
@given(
    num_examples=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    num_hosts=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_division_gives_the_score_of_the_whole(num_examples, batch_size, num_hosts, seed):
    rng = np.random.default_rng(seed)
    predictions, labels = rng.integers(0, 2, (2, num_examples))
    order = rng.permutation(num_examples)
    padded = np.resize(order, -(-num_examples // batch_size) * batch_size).reshape(-1, batch_size)
    weights = (np.arange(padded.size) < num_examples).reshape(padded.shape).astype(np.float32)
    states = [Predictions.of_batch(i, predictions[i], w) for i, w in zip(padded, weights, strict=True)]
    hosts = [Predictions.merge(states[host::num_hosts]) for host in range(min(num_hosts, len(states)))]
    whole = Predictions.merge(reversed(hosts)).in_order(num_examples)
    np.testing.assert_array_equal(whole, predictions)
    assert metrics.f1(whole, labels) == metrics.f1(predictions, labels)


def test_logits_keep_their_shape():
    state = Predictions.of_batch(np.array([1, 0, 1]), np.arange(6.0).reshape(3, 2), np.array([1, 1, 0]))
    np.testing.assert_array_equal(state.in_order(2), [[2.0, 3.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("indices", "message"),
    [([0, 1], "1 have none"), ([0, 1, 1], "1 have none, 1 have several"), ([0, 1, 2, 3], "1 are of no")],
)
def test_an_example_lost_or_counted_twice_is_a_defect(indices, message):
    with pytest.raises(RuntimeError, match=message):
        Predictions(np.array(indices), np.zeros(len(indices))).in_order(3)


def test_nothing_to_merge():
    with pytest.raises(UserError, match="no predictions"):
        Predictions.merge([])


# Bad input.


@pytest.mark.parametrize("name", [name for name in METRICS if name != "entity_f1"])
def test_sides_that_do_not_fit_are_refused(name):
    for sides in (([1], [1, 0]), ([], []), ([[1]], [[1]])):
        with pytest.raises(UserError, match="one prediction for every label"):
            METRICS[name](*sides)
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match="diverged"):
            METRICS[name]([bad, 0.0], [0.0, 1.0])


def test_f1_is_of_two_classes():
    with pytest.raises(UserError, match="two classes"):
        metrics.f1([2, 0], [1, 0])


def test_an_unknown_score_is_refused():
    with pytest.raises(UserError, match="Unknown metric 'acc'; known: accuracy"):
        metrics.scores(("acc",), [1], [1])


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [([1, 1, 1], True), ([1, 0, 1], False), ([0.5, 0.5], True), ([0.5, 0.6], False)],
)
def test_degenerate(predictions, expected):
    assert metrics.degenerate(predictions) is expected
