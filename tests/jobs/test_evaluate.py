"""Scores of sentence vectors without fine-tuning."""

import itertools
import json

import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.baselines import tfidf_vectors
from eelbert_jax.datasets.metrics import pearson, spearman
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.suite import cosines
from eelbert_jax.jobs.evaluate import evaluate, main
from support.models import save_pretrained

TEXTS = ("the file opens .", "a file opens", "running", "the runner run .", "table")
PAIRS = list(itertools.combinations_with_replacement(TEXTS, 2))
NUMBERS = [float(5 - abs(len(a) - len(b)) / 4) for a, b in PAIRS]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
    rows = [f"{a}\t{b}\t{number}\n" for (a, b), number in zip(PAIRS, NUMBERS, strict=True)]
    path.write_text("sentence\tother\tlabel\n" + "".join(rows))
    return path


def words(table):
    fields = {"train": table, "dev": table, "second_text_column": "other", "regression": True}
    return [f"--config.custom.{name}={value}" for name, value in fields.items()]


def test_scores_are_those_of_the_vectors_cosines(table, tmp_path, capsys):
    model = load(save_pretrained(tmp_path))
    main(["--config=configs/glue.py:micro,task=custom", *words(table), f"--from={tmp_path}", "--json"])
    by_words, ours = map(json.loads, capsys.readouterr().out.splitlines())
    first, second = ([pair[side] for pair in PAIRS] for side in (0, 1))
    vectors = (model.encode(side).astype(np.float64) for side in (first, second))
    found = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*vectors, strict=True)]
    found = np.array(found, np.float32)  # so that a text's cosine to itself is 1
    assert ours["spearman"] == pytest.approx(spearman(found, np.array(NUMBERS)), abs=1e-6)
    assert ours["pearson"] == pytest.approx(pearson(found, np.array(NUMBERS)), abs=1e-5)
    assert by_words["model"] == "TF-IDF"
    assert by_words["spearman"] != ours["spearman"]


def test_cosines_of_words():
    first, second = ["a file", "a file", "the run"], ["File a", "the run", "the table"]
    vectors_of = tfidf_vectors(first + second)
    found = cosines(vectors_of(first), vectors_of(second))
    assert found[:2] == pytest.approx([1, 0])
    assert 0 < found[2] < 1


def test_a_vector_without_length_is_like_none():
    assert cosines(np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [3.0, 4.0]])).tolist() == [0, 1]


@pytest.mark.parametrize("task", ["sst2", "rte"])
def test_a_task_without_numbers_for_pairs_is_refused(task):
    config = cli.load_config(f"configs/glue.py:micro,task={task}")
    with pytest.raises(UserError, match=rf"{task} has none: take --config=configs/glue\.py:tiny,task=stsb"):
        list(evaluate(config, []))
