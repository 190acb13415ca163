import pytest

from eelbert_jax.datasets.metrics import METRICS
from eelbert_jax.datasets.tasks import CLASSIFY, GLUE_TASKS, REGRESS, check_labels, find_task
from eelbert_jax.errors import UserError


def test_the_table_is_whole():
    names = "cola sst2 mrpc stsb qqp mnli qnli rte wnli ax qqp_sample"
    assert list(GLUE_TASKS) == names.split()
    for task in GLUE_TASKS.values():
        assert len(task.text_fields) == len(task.text_columns) in (1, 2)
        assert set(task.dev_splits) | set(task.test_splits) <= set(task.splits)
        assert set(task.metrics) <= set(METRICS)
        assert len(task.submission_files) == (len(task.test_splits) if task.official else 0)
        assert task.kind == (REGRESS if task.name == "stsb" else CLASSIFY)
        assert not task.is_custom
        hash(task)


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'sst2'"):
        find_task("SST-2")
    assert find_task("rte") is GLUE_TASKS["rte"]


def test_labels_in_another_order_than_the_checkpoints():
    check_labels(("no", "yes"), ["no", "yes"])
    with pytest.raises(UserError, match=r"another order.*no, yes here, yes, no there"):
        check_labels(("no", "yes"), ("yes", "no"))
    with pytest.raises(UserError, match=r"other labels.*none \(a number\) there"):
        check_labels(("no", "yes"), ())
