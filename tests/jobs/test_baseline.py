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


def test_all_baselines_of_a_named_task_by_a_chosen_metric(reviews, tmp_path, capsys):
    options = ["--config.task_name=moods", "--config.metric=macro_f1", "--kind=all"]
    main(["--config=configs/glue.py:tiny,task=custom", *reviews, *options, f"--workdir={tmp_path / 'runs'}"])
    runs = find_runs(str(tmp_path / "runs")).finetuning
    assert {run.result.model.name for run in runs} == {"bag of words", "TF-IDF"}
    for run in runs:
        assert run.result.task == "moods"
        assert list(run.result.metrics) == ["macro_f1", "accuracy", "f1"]
    details = json.loads((tmp_path / "runs" / "tfidf" / "details.json").read_text())
    assert details["dev"]["confusion"] == [[1, 1], [0, 1]]
    assert "TF-IDF on moods: macro_f1 0.6667" in capsys.readouterr().out


def test_a_tag_lookup_of_words(tmp_path):
    for split, text in {
        "train": "Ada B-PER\nruns O\n\nBob B-PER\n",
        "dev": "Ada B-PER\nBob B-PER\nEve B-PER\n",
    }.items():
        (tmp_path / f"{split}.txt").write_text(text)
    words = [f"--config.tokens.{split}={tmp_path / split}.txt" for split in ("train", "dev")]
    main(["--config=configs/glue.py:tiny,task=tokens", *words, f"--workdir={tmp_path / 'run'}"])
    (run,) = find_runs(str(tmp_path)).finetuning
    assert run.result.metrics == {"entity_f1": 1.0, "accuracy": 1.0}
    details = json.loads((tmp_path / "run" / "details.json").read_text())
    assert details["dev"]["per_entity"]["PER"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 3}
    with pytest.raises(UserError, match="--kind='tfidf' does not fit tokens; take tag_lookup or all"):
        main(
            [
                "--config=configs/glue.py:tiny,task=tokens",
                *words,
                "--kind=tfidf",
                f"--workdir={tmp_path / 'b'}",
            ]
        )


@pytest.mark.parametrize(
    ("metric", "message"),
    [("acc", "take one of accuracy"), ("mse", "cannot select"), ("entity_f1", "of tagged words")],
)
def test_a_metric_that_cannot_select(metric, message, reviews, tmp_path):
    with pytest.raises(UserError, match=message):
        main(
            [
                "--config=configs/glue.py:tiny,task=custom",
                *reviews,
                f"--config.metric={metric}",
                f"--workdir={tmp_path}",
            ]
        )


def test_bad_rows_are_skipped_where_the_config_says_so(reviews, tmp_path):
    with (tmp_path / "train.tsv").open("a") as file:
        file.write("no label\n")
    call = ["--config=configs/glue.py:tiny,task=custom", *reviews, f"--workdir={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"train.tsv, line 26: 'label' is missing.*on_bad_record=skip"):
        main(call)
    main([*call, "--config.on_bad_record=skip"])
    assert json.loads((tmp_path / "run" / "result.json").read_text())["num_examples"]["train"] == 24


def test_missing_files_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"'rte' has no train\.tsv"):
        main(
            [
                "--config=configs/glue.py:tiny,task=rte",
                f"--config.data.glue_dir={tmp_path}",
                f"--workdir={tmp_path}",
            ]
        )
