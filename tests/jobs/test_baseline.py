import json

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.jobs.baseline import main
from eelbert_jax.reporting.runs import find_runs


@pytest.fixture
def reviews(tmp_path):
    """A table whose label is a word, but for one row of the development set that says so with other words."""
    train = "".join(f"{word} film {i}\t{word}\n" for i in range(8) for word in ("good", "bad", "good"))
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + train)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na good one\tgood\na bad one\tbad\nawful\tbad\n")
    return [f"--config.custom.{split}={tmp_path / split}.tsv" for split in ("train", "dev")]


def test_a_run_that_the_report_reads(reviews, tmp_path, capsys):
    main(["--config=configs/glue.py:tiny,task=custom", *reviews, f"--workdir={tmp_path / 'runs' / 'bag'}"])
    result = json.loads((tmp_path / "runs" / "bag" / "result.json").read_text())
    assert result["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert result["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert not result["degenerate"]
    assert result["num_examples"] == {"train": 24, "dev": 3}
    assert "bag of words on custom: accuracy 0.6667" in capsys.readouterr().out
    (run,) = find_runs(str(tmp_path / "runs")).finetuning
    assert (run.result.model.name, run.result.metrics) == ("bag of words", result["metrics"])
    assert run.task == f"{tmp_path.name}/train.tsv"
    assert set(run.result.data) == {"train", "dev"}


def test_a_task_of_ones_own_may_have_a_name(reviews, tmp_path, capsys):
    words = ["--config=configs/glue.py:tiny,task=custom", *reviews, f"--workdir={tmp_path / 'runs' / 'bag'}"]
    main([*words, "--config.task_name=films"])
    assert "bag of words on films: accuracy" in capsys.readouterr().out
    (run,) = find_runs(str(tmp_path / "runs")).finetuning
    assert (run.task, run.is_own) == ("films", True)
    with pytest.raises(UserError, match=r"config\.task_name='rte' is a task of GLUE; give yours another"):
        main([*words, "--config.task_name=rte"])


def test_missing_files_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"'rte' has no train\.tsv"):
        main(
            [
                "--config=configs/glue.py:tiny,task=rte",
                f"--config.data.glue_dir={tmp_path}",
                f"--workdir={tmp_path}",
            ]
        )
