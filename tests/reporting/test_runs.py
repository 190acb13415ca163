"""Runs as the report finds them: what is broken is named, own tasks and folders are told apart."""

import json
import shutil

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.jobs.report import report
from eelbert_jax.reporting import runs, scores
from support.run_folders import (
    result,
    write_own,
    write_results,
)


def test_a_run_is_not_searched_for_runs(tmp_path):
    write_results(tmp_path, result())
    shutil.copytree(tmp_path / "000", tmp_path / "000" / "checkpoints" / "copy")
    assert len(runs.find_runs(f"{tmp_path}, {tmp_path}/0*").finetuning) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        (json.dumps({k: v for k, v in result().items() if k != "seed"}), "seed is missing, expected int"),
        (json.dumps(result(seed="0")), "seed is '0', expected int"),
        (json.dumps(result(degenerate=1)), "degenerate is 1, expected bool"),
        (json.dumps(result(batch_size=True)), "batch_size is True"),
        (json.dumps(result(metrics={"accuracy": float("nan")})), "metrics.accuracy is nan"),
        (json.dumps(result(metrics={"acc": 0.8})), "metrics.accuracy is missing"),
        (json.dumps(result(task="mrpc", metrics={"accuracy": 0.8})), "metrics.f1 is missing"),
        (json.dumps(result(task="custom", metrics={})), "metrics.any metric is missing"),
        (json.dumps(result(num_examples={"dev": 3})), "num_examples.train is missing"),
        (json.dumps(result(pretrained={"workdir": "x"})), "pretrained.step is missing, expected int or null"),
        (json.dumps(result(pretrained="x")), "pretrained is 'x', expected dict or null"),
    ],
)
def test_a_corrupt_result_is_named(tmp_path, text, message):
    write_results(tmp_path / "runs", result())
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"result\.json") as error:
        report(str(tmp_path / "runs"), tmp_path / "out")
    assert str(tmp_path / "runs" / "broken" / "result.json") in str(error.value)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def own_tasks(folder):
    """Return the seeds of every own task under `folder`, by the task's name."""
    (model,) = scores.collect(runs.find_runs(str(folder)).finetuning, ()).models
    return {task: [run.result.seed for run in found.runs] for task, found in model.chosen.items()}


def test_own_tasks_are_told_apart_by_what_their_files_hold(tmp_path):
    films, news = {"train": "aa", "dev": "ab"}, {"train": "ba", "dev": "bb"}
    write_own(tmp_path, "1", "films/train.csv", "films/dev.csv", data=films)
    write_own(tmp_path, "2", "news/train.csv", "news/dev.csv", data=news, seed=1)
    write_own(tmp_path, "3", "/moved/films/train.csv", "/moved/films/dev.csv", data=films, seed=2)
    assert own_tasks(tmp_path) == {"films/train.csv": [0, 2], "news/train.csv": [1]}


def test_a_file_edited_in_place_or_read_from_another_folder_is_another_task(tmp_path):
    for number in range(2):
        write_own(tmp_path, str(number), "train.csv", "dev.csv", data={"train": f"{number}"}, seed=number)
    folder = tmp_path.name
    assert own_tasks(tmp_path) == {
        f"train.csv, as in {folder}/0 (label)": [0],
        f"train.csv, as in {folder}/1 (label)": [1],
    }


def test_two_columns_of_one_file_are_two_tasks(tmp_path):
    for number, column in enumerate(("topic", "tone")):
        write_own(tmp_path, column, "train.csv", "dev.csv", settings={"label_column": column}, seed=number)
    assert own_tasks(tmp_path) == {"train.csv (topic)": [0], "train.csv (tone)": [1]}


def test_records_without_the_files_digests_go_by_their_place(tmp_path):
    write_own(tmp_path, "old", "a/train.csv", "a/dev.csv", seed=1)
    write_own(tmp_path, "other", "b/train.csv", "b/dev.csv", seed=2)
    write_own(tmp_path, "new", "a/train.csv", "a/dev.csv", data={"train": "aa"}, seed=3)
    longer = {"num_examples": {"train": 2000, "dev": 100}}
    write_own(tmp_path, "longer", "b/train.csv", "b/dev.csv", seed=4, **longer)
    found = own_tasks(tmp_path)
    assert found.pop("a/train.csv") == [1, 3]
    assert sorted(found.values()) == [[2], [4]]


def test_a_task_with_a_name_goes_by_it(tmp_path):
    write_own(tmp_path, "1", "train.csv", "dev.csv", data={"train": "aa"})
    run = write_own(tmp_path, "2", "train.csv", "dev.csv", data={"train": "bb"})
    values = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**values, "task": "reviews"}))
    assert set(own_tasks(tmp_path)) == {"train.csv", "reviews"}


def test_folders_with_commas_and_brackets_are_found(tmp_path):
    cell, plain = tmp_path / "task=sst2,seed=0", tmp_path / "plain [1]"
    write_results(cell, result())
    write_results(plain, result(seed=1))
    assert len(runs.find_runs(f"{cell},{plain}").finetuning) == 2
    assert len(runs.find_runs(f"{tmp_path}/task=sst2,*, {plain}").finetuning) == 2
    with pytest.raises(UserError, match="Nothing is at 'gone'; give paths or patterns: --runs=PATH,PATH"):
        runs.find_runs(f"{cell},gone,{plain}")


def test_folders_of_one_name_are_told_apart(tmp_path):
    for place in ("mine", "yours"):
        write_results(tmp_path / place / "tuned", result(seed=len(place)))
    found = runs.find_runs(f"{tmp_path / 'mine' / 'tuned'},{tmp_path / 'yours' / 'tuned'}").finetuning
    assert [run.folder for run in found] == ["mine/tuned/000", "yours/tuned/000"]
