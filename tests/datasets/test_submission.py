"""Files for the GLUE server: names, spelling, order, and the refusal of anything incomplete."""

import numpy as np
import pytest

from eelbert_jax.datasets.submission import SUBMISSION_ROWS, submission_file, write_submission
from eelbert_jax.datasets.tasks import GLUE_TASKS
from eelbert_jax.errors import UserError

SPELLING = {
    "cola": ["0", "1"],
    "sst2": ["0", "1"],
    "mrpc": ["0", "1"],
    "qqp": ["0", "1"],
    "wnli": ["0", "1"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "ax": ["entailment", "neutral", "contradiction"],
    "qnli": ["entailment", "not_entailment"],
    "rte": ["entailment", "not_entailment"],
}


def written(path):
    """Return the lines of a file as (index, prediction), the header checked."""
    header, *lines = path.read_text().splitlines()
    assert header == "index\tprediction"
    return [tuple(line.split("\t")) for line in lines]


@pytest.mark.parametrize("name", SPELLING)
def test_classes_are_spelled_as_the_server_wants_them(tmp_path, name):
    task = GLUE_TASKS[name]
    for split in task.test_splits:
        n = SUBMISSION_ROWS[submission_file(task, split)]
        classes = np.arange(n) % len(SPELLING[name])
        path = write_submission(tmp_path, task, split, np.arange(n), classes)
        assert written(path) == [(str(i), SPELLING[name][i % len(SPELLING[name])]) for i in range(n)]


def test_rows_are_in_the_order_of_the_index(tmp_path):
    ids = np.random.default_rng(0).permutation(146)
    path = write_submission(tmp_path, GLUE_TASKS["wnli"], "test", ids, (ids < 100).astype(np.int64))
    assert path.name == "WNLI.tsv"
    assert written(path) == [(str(i), "1" if i < 100 else "0") for i in range(146)]


def test_scores_are_clipped(tmp_path):
    predictions = np.zeros(1379, np.float32)
    predictions[:4] = [-0.2, 5.3, 2.71828, 5.0]
    path = write_submission(tmp_path, GLUE_TASKS["stsb"], "test", np.arange(1379), predictions)
    assert [score for _, score in written(path)[:5]] == ["0.000", "5.000", "2.718", "5.000", "0.000"]


def test_the_table_has_every_file():
    named = {submission_file(task, s) for task in GLUE_TASKS.values() for s in task.test_splits}
    assert named == set(SUBMISSION_ROWS)


@pytest.mark.parametrize("name", ["CoLA", "SST-2", "MRPC", "STS-B", "QNLI", "RTE", "WNLI"])
def test_rows_are_those_of_the_real_test_files(data_dir, name):
    lines = (data_dir / "glue" / name / "test.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    assert len(lines) - 1 == SUBMISSION_ROWS[f"{name}.tsv"]


@pytest.mark.parametrize(
    ("name", "split", "ids", "predictions", "message"),
    [
        ("wnli", "dev", np.arange(146), np.zeros(146, int), "takes no predictions for wnli, 'dev'"),
        ("qqp_sample", "test", np.arange(9), np.zeros(9, int), "takes no predictions for qqp_sample"),
        ("wnli", "test", np.arange(145), np.zeros(145, int), "needs 146 rows"),
        ("wnli", "test", np.arange(146), np.zeros(145, int), "needs 146 rows"),
        ("wnli", "test", np.arange(146) + 1, np.zeros(146, int), "not 0 to 145"),
        ("wnli", "test", np.arange(146) // 2, np.zeros(146, int), "not 0 to 145"),
        ("wnli", "test", np.arange(146), np.zeros(146), "class numbers"),
        ("wnli", "test", np.arange(146), np.full(146, 2), "class 2 is none of wnli's 2"),
        ("wnli", "test", np.arange(146), np.full(146, -1), "class -1"),
        ("stsb", "test", np.arange(1379), np.full(1379, np.nan), "not finite"),
    ],
)
def test_what_the_server_would_refuse_is_refused(tmp_path, name, split, ids, predictions, message):
    with pytest.raises(UserError, match=message):
        write_submission(tmp_path, GLUE_TASKS[name], split, ids, predictions)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_submission(tmp_path / "file", GLUE_TASKS["wnli"], "test", np.arange(146), np.zeros(146, int))
