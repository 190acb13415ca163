"""Texts with any number of labels: tables, scores and baselines."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from eelbert_jax.datasets import metrics, multilabel
from eelbert_jax.datasets.baselines import LinearBaseline, majority
from eelbert_jax.datasets.custom import custom_task
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.splits import select_by
from eelbert_jax.errors import UserError

LABELS = ("cast", "plot", "score")
TOLERANCE = 1e-12
TSV = "text\ttopics\nbad acting\tcast\nlong; dull\tplot; cast\nnothing\t\nsongs\t;score;;cast;score\n"


def task_of(tmp_path, content=TSV, suffix="tsv", **options):
    path = tmp_path / f"train.{suffix}"
    path.write_text(content)
    return custom_task({"train": str(path), "dev": str(path)}, ["text"], "topics", **options)


def test_a_cell_is_a_set_of_labels_and_an_empty_one_has_none(tmp_path):
    task = task_of(tmp_path, label_separator=";")
    assert (task.kind, task.labels) == ("multilabel", LABELS)
    examples = load_examples(task, "train", glue_dir=None)
    assert examples.labels.tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert examples.first[1] == "long; dull"
    with pytest.raises(UserError, match="'topics' is missing"):  # the same cells as one class each
        load_examples(task_of(tmp_path), "train", glue_dir=None)


def test_a_cell_that_is_not_there_is_no_empty_one(tmp_path):
    rows = [{"text": "a", "topics": "x|y"}, {"text": "b", "topics": None}, {"text": "c", "topics": ""}]
    task = task_of(tmp_path, "\n".join(map(json.dumps, rows)), "jsonl", label_separator="|")
    with pytest.raises(UserError, match=r"line 2: 'topics' is missing"):
        load_examples(task, "train", glue_dir=None)
    kept = load_examples(task, "train", glue_dir=None, on_bad_record="skip")
    assert (kept.first, kept.labels.tolist()) == (("a", "c"), [[1, 1], [0, 0]])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("options", [{}, dict(label_separator=";"), dict(labels=("art", "food; drink"))])
def test_labels_as_lists(tmp_path, suffix, options):
    topics = [["food; drink", " art"], [], None, ["art"]]
    rows = [{"text": text, "topics": names} for text, names in zip("abcd", topics, strict=True)]
    path = tmp_path / f"train.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    task = custom_task({"train": str(path), "dev": str(path)}, ["text"], "topics", **options)
    assert (task.kind, task.labels) == ("multilabel", ("art", "food; drink"))
    assert task.metrics == tuple(multilabel.METRICS)
    with pytest.raises(UserError, match=r"3: 'topics' is missing"):
        load_examples(task, "train", glue_dir=None)
    kept = load_examples(task, "train", glue_dir=None, on_bad_record="skip")
    assert (kept.first, kept.labels.tolist()) == (("a", "b", "d"), [[1, 1], [0, 0], [1, 0]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "a", "topics": ["x", "y"]}, {"text": "b", "topics": ["x", None]}],
            "line 2: 'topics' is mis",
        ),
        ([{"text": ["a"], "topics": ["x", "y"]}], "line 1: 'text' is missing"),
        (
            [{"text": "a", "topics": "x"}, {"text": "b", "topics": ["y"]}, {"text": "c", "topics": "z"}],
            "line 2",
        ),
    ],
)
def test_a_list_that_is_none_of_labels_is_refused(tmp_path, rows, message):
    task = task_of(tmp_path, "\n".join(map(json.dumps, rows)), "jsonl")
    with pytest.raises(UserError, match=message):
        load_examples(task, "train", glue_dir=None)


def test_a_label_alone_among_lists_is_one_label(tmp_path):
    rows = [{"text": "a", "topics": ["x", "y"]}, {"text": "b", "topics": "y"}, {"text": "c", "topics": ""}]
    task = task_of(tmp_path, "\n".join(map(json.dumps, rows)), "jsonl")
    assert load_examples(task, "train", glue_dir=None).labels.tolist() == [[1, 1], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(label_separator="|"), r"label_separator='\|' is in no cell of column 'topics' \(.*'cast'"),
        (dict(label_separator=";", regression=True), "a number is one label, got label_separator=';'"),
        (dict(label_separator=";", labels=LABELS[:2]), "'score' is no label .* label_separator"),
        (dict(label_separator="|", labels=LABELS), "'plot; cast' is no label .* label_separator"),
    ],
)
def test_a_separator_that_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        load_examples(task_of(tmp_path, **options), "train", glue_dir=None)


def test_single_labels_will_do_where_the_labels_are_named(tmp_path):
    task = task_of(tmp_path, "text\ttopics\na\tplot\nb\t\n", label_separator="|", labels=LABELS)
    assert load_examples(task, "dev", glue_dir=None).labels.tolist() == [[0, 1, 0], [0, 0, 0]]


def test_the_metric_that_selects_is_one_of_several_labels(tmp_path):
    task = task_of(tmp_path, label_separator=";")
    assert task.metrics == ("micro_f1", "macro_f1", "exact_match")
    assert select_by(task, "exact_match").metrics[0] == "exact_match"
    with pytest.raises(UserError, match="take one of micro_f1, macro_f1, exact_match"):
        select_by(task, "accuracy")
    with pytest.raises(UserError, match="'micro_f1' cannot select"):
        select_by(task_of(tmp_path, "text\ttopics\na\tx\nb\ty\n"), "micro_f1")


@settings(max_examples=50)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(2, 4)),
    data=st.data(),
)
def test_scores_as_scikit_learn(shape, data):
    predictions, truth = (
        data.draw(st_numpy.arrays(np.int32, shape, elements=st.integers(0, 1))) for _ in range(2)
    )
    found = multilabel.scores(tuple(multilabel.METRICS), predictions, truth)
    for average in ("micro", "macro"):
        expected = sklearn.metrics.f1_score(truth, predictions, average=average, zero_division=0.0)
        assert found[f"{average}_f1"] == pytest.approx(expected, abs=TOLERANCE)
    assert found["exact_match"] == sklearn.metrics.accuracy_score(truth, predictions)
    details = json.loads(json.dumps(metrics.details("multilabel", "abcd"[: shape[1]], predictions, truth)))
    columns = sklearn.metrics.precision_recall_fscore_support(truth, predictions, zero_division=0.0)
    for name, column in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        figures = [scores[name] for scores in details["per_class"].values()]
        assert figures == pytest.approx(column.tolist(), abs=TOLERANCE)


def test_sides_that_do_not_fit_are_refused():
    for sides in (([[1, 0]], [[1]]), ([1, 0], [1, 0]), (np.zeros((0, 2)), np.zeros((0, 2)))):
        for metric in multilabel.METRICS.values():
            with pytest.raises(UserError, match="a row of decisions for every example"):
                metric(*sides)


def test_baselines():
    labels = np.array([[1, 0, 1], [1, 0, 0], [1, 1, 0]], np.int32)
    assert majority(labels, 2).tolist() == [[1, 0, 0]] * 2
    words = ("good", "slow", "loud")
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (300, 3))
    texts = ["a film " + " ".join(np.array(words)[row > 0]) for row in truth]
    found = LinearBaseline.fit("bag_of_words", texts, None, truth, "multilabel")
    np.testing.assert_array_equal(found.predict(texts[:50], None), truth[:50])
    assert found.num_parameters == 3 * (len(found.vectorizer.vocabulary_) + 1)
