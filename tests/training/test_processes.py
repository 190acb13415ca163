"""A fine-tuning over several processes and devices learns what one process does; one takes up its run."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from eelbert_jax.record import Result
from eelbert_jax.workdir import RESULT_NAME, VOCABULARY_NAME
from support.processes import run
from support.workdirs import figures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    animals, places = ("dog", "fox", "cat", "bear"), ("field", "wood", "garden")
    rows = [
        f"The {animal} ran over the {place}.\t{animal in animals[:2]}"
        for animal, place in itertools.product(animals, places)
    ]
    path = tmp_path_factory.mktemp("table") / "animals.tsv"
    path.write_text("sentence\tlabel\n" + "".join(f"{row}\n" for row in rows * 8))
    return path


def words(rows_dir: Path, table: Path, workdir: Path, *changes: str) -> list[str]:
    return [
        sys.executable, "-m", "eelbert_jax", "finetune", "--config=configs/glue.py:micro,task=custom",
        f"--config.vocabulary={rows_dir / VOCABULARY_NAME}", f"--config.custom.train={table}",
        "--config.custom.dev_every=4", "--config.batch_size=8", "--config.num_epochs=2",
        "--config.log_every_steps=1", "--config.opt.learning_rate=5e-3",
        "--config.model.hidden_dropout_prob=0.0", "--config.model.attention_probs_dropout_prob=0.0",
        f"--workdir={workdir}", *changes,
    ]  # fmt: skip


def test_two_processes_with_split_parameters_learn_what_one_does(rows_dir, table, tmp_path):
    run(words(rows_dir, table, tmp_path / "one"))
    split = ("--config.mesh.fsdp=2", "--config.mesh.zero1=true")
    run(words(rows_dir, table, tmp_path / "two", *split), processes=2, devices=2)
    one, two = (figures(tmp_path / name, "train_loss") for name in ("one", "two"))
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-4)  # the order of float32 sums
    results = [Result.read(tmp_path / name / RESULT_NAME) for name in ("one", "two")]
    assert results[0].metrics == results[1].metrics
    [out] = run(words(rows_dir, table, tmp_path / "two"))  # one process finds the run of two finished
    assert "is finished: nothing to do." in out
