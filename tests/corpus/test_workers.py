"""Worker processes: a defect in one is told from bad input."""

import pytest

from eelbert_jax.corpus import workers


class Failing:
    """A task that fails in a way no one foresaw."""

    def __call__(self, item, advance):
        raise KeyError(item)


def test_defect_in_a_worker_is_not_taken_for_bad_input(capfd):
    with pytest.raises(RuntimeError, match="worker process failed with status 1"):
        workers.run_tasks(Failing(), [0, 1], 2, lambda done: None)
    assert "KeyError" in capfd.readouterr().err
