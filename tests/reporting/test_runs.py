"""Runs as the report reads them: which model, which checkpoint, which seeds; what is broken is named."""

import json
import shutil
import statistics

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.jobs.report import report
from eelbert_jax.model.config import size_of
from eelbert_jax.record import Start
from eelbert_jax.reporting import pretraining, runs, scores, tables
from support.run_folders import (
    collect,
    published_identity,
    result,
    write_own,
    write_pretraining,
    write_results,
    write_rows,
)


def test_a_recorded_model_is_counted_where_its_kind_is_known():
    identity = published_identity("tiny", "table")
    assert pretraining.parameters_of(identity)["MLM"] == 4_416_698
    assert pretraining.parameters_of({**identity, "adapters": 48}) == {}


def test_sizes_are_found_by_their_fields():
    assert size_of(published_identity("mini", "ngram_hash")) == "mini"
    assert size_of({**published_identity("mini", "table"), "num_hidden_layers": 5}) is None


def test_hash_changes_are_named():
    assert pretraining.hash_changes(HashSpec().to_dict()) == ()
    assert pretraining.hash_changes(HashSpec(bucket_size=256, max_gram=2).to_dict()) == (
        "max_gram=2",
        "bucket_size=256",
    )


def test_summary_of_seeds_by_hand():
    assert scores.summarize([0.7, 0.9, 0.8, 0.8]) == (
        pytest.approx(0.8),
        pytest.approx(statistics.stdev([7, 8, 8, 9]) / 10),
        pytest.approx(0.8),
        4,
    )
    assert scores.summarize([0.5]) == (0.5, None, 0.5, 1)
    assert tables.summary_text(scores.summarize([0.7, 0.75, 0.95])) == "0.800 ± 0.132 (median 0.750, n=3)"
    assert tables.summary_text(scores.summarize([0.5])) == "0.500 (n=1)"


def test_mnli_counts_once():
    figures = {("mnli", "accuracy"): 0.6, ("mnli", "accuracy_mismatched"): 0.8, ("rte", "accuracy"): 0.5}
    found = scores.average(lambda *key: figures.get(key), ("mnli", "rte", "qnli"))
    assert found == (pytest.approx(0.6), ("mnli", "rte"), ("qnli",))
    del figures["mnli", "accuracy_mismatched"]
    assert scores.average(lambda *key: figures.get(key), ("mnli", "rte")) == (0.5, ("rte",), ("mnli",))
    assert scores.average(lambda *_: None, ("rte",)) == (None, (), ("rte",))


def test_checkpoints_of_one_name_stay_apart(tmp_path):
    start = {"step": 1000, "tokens": None, "heldout_loss": None}
    found = collect(
        tmp_path,
        result(metrics=0.7, pretrained={**start, "workdir": "runs/short"}),
        result(metrics=0.8, pretrained={**start, "workdir": "runs/long/"}),
        result(metrics=0.9, pretrained={**start, "workdir": "runs/long"}, seed=1),
    )
    assert {model.label: model.mean("sst2", "accuracy") for model in found.models} == {
        "BERT-tiny (short)": pytest.approx(0.7),
        "BERT-tiny (long)": pytest.approx(0.85),
    }


def test_variants_of_a_hash_are_told_apart_by_their_checkpoint(tmp_path):
    rows = write_rows(tmp_path / "rows")
    changed = write_pretraining(tmp_path / "pre" / "small", rows, embedding="ngram_hash", bucket_size=256)
    start = {"workdir": str(changed), "step": 20, "tokens": 2560, "heldout_loss": 1.0}
    write_results(tmp_path / "tuned", result("EELBERT-tiny"), result("EELBERT-tiny", pretrained=start))
    found = runs.find_runs(f"{tmp_path / 'pre'},{tmp_path / 'tuned'}")
    collected = scores.collect(found.finetuning, found.pretraining)
    assert {model.label: model.name for model in collected.models} == {
        "EELBERT-tiny": "EELBERT-tiny",
        "EELBERT-tiny, bucket_size=256": None,
    }


def test_of_a_grid_the_most_seeds_come_first_then_the_best_mean(tmp_path):
    grid = [result(metrics=value, seed=seed) for seed, value in enumerate((0.70, 0.72))]
    grid += [result(metrics=value, seed=seed, batch_size=8) for seed, value in enumerate((0.74, 0.76))]
    grid += [result(metrics=0.99, batch_size=64)]
    (model,) = collect(tmp_path, *grid).models
    assert len(model.tried["sst2"]) == 3
    assert model.chosen["sst2"].recipe.batch_size == 8
    assert model.mean("sst2", "accuracy") == pytest.approx(0.75)


def test_a_seed_counts_once(tmp_path):
    with pytest.raises(UserError, match=r"tree/000 and tree/001 are the same seed \(0\)"):
        collect(tmp_path / "tree", result(), result(metrics=0.9))


def test_what_a_record_does_not_say_of_its_checkpoint_the_checkpoint_does(tmp_path):
    run = write_pretraining(tmp_path / "pre", write_rows(tmp_path / "rows"))
    here, elsewhere = {"workdir": str(run), "step": 20}, {"workdir": str(tmp_path / "gone"), "step": 20}
    (model,) = collect(tmp_path / "a", result(pretrained=here)).models
    assert model.start == Start(str(run), 20, 20 * 16 * 8, 1.0)
    (model,) = collect(tmp_path / "b", result(pretrained=elsewhere)).models
    assert model.start == Start(elsewhere["workdir"], 20, None, None)


def test_a_pretraining_record_says_its_tokens_without_its_rows(tmp_path):
    folder = write_pretraining(tmp_path / "run", tmp_path / "rows that are elsewhere")

    def read(step):
        found = pretraining.read_checkpoint(str(folder), step)
        assert (found.workdir, found.step) == (str(folder), step)
        return found.tokens, found.heldout_loss

    assert read(20) == (None, 1.0)
    config = json.loads((folder / "config.json").read_text())
    config["run"]["row_length"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    assert read(20) == (20 * 16 * 8, 1.0)
    assert read(10) == (10 * 16 * 8, None)
    assert read(None) == (None, None)  # an imported model
    (folder / "metrics.jsonl").unlink()
    assert read(20) == (None, None)


def test_other_development_sets_are_refused(tmp_path):
    smaller = result("EELBERT-tiny", num_examples={"train": 1000, "dev": 99})
    with pytest.raises(UserError, match=r"tree/000 and tree/001 measured sst2 on different development sets"):
        collect(tmp_path / "tree", result(), smaller)


def test_an_unofficial_split_is_never_the_task(tmp_path):
    (model,) = collect(tmp_path, result(task="qqp", official=False), result(task="sst2")).models
    assert set(model.chosen) == {"qqp (unofficial split)", "sst2"}
    assert scores.average(model.mean, ("qqp", "sst2")).missing == ("qqp",)


def test_a_run_that_goes_on_is_reported_as_unfinished(tmp_path):
    rows = write_rows(tmp_path / "rows")
    run = write_pretraining(tmp_path / "runs" / "a", rows)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "heldout_lo')
    (found,) = runs.find_runs(str(tmp_path / "runs")).pretraining
    assert found.curve[-1].step == 20
    fresh = write_pretraining(tmp_path / "runs" / "b", rows)
    (fresh / "metrics.jsonl").write_text("")
    text = report(str(tmp_path / "runs"), tmp_path / "out").read_text()
    assert "| - of 20 (unfinished) |" in text


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


def test_a_torn_line_inside_the_metrics_is_named(tmp_path):
    run = write_pretraining(tmp_path / "runs" / "a", write_rows(tmp_path / "rows"))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:9], *lines[2:]]))
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is no JSON object"):
        runs.find_runs(str(tmp_path / "runs"))


# Tasks of users' own files


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
    found = own_tasks(tmp_path)
    assert sorted(found.values()) == [[0], [1]]
    assert all(name.startswith("train.csv (label, ") for name in found)


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


# Names


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
