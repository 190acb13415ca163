"""From runs to what a table prints: seeds, recipes, averages by hand; models of one name told apart."""

import statistics

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.record import Start
from eelbert_jax.reporting import runs, scores, tables
from support.run_folders import (
    collect,
    result,
    write_pretraining,
    write_results,
    write_rows,
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


def test_other_development_sets_are_refused(tmp_path):
    smaller = result("EELBERT-tiny", num_examples={"train": 1000, "dev": 99})
    with pytest.raises(UserError, match=r"tree/000 and tree/001 measured sst2 on different development sets"):
        collect(tmp_path / "tree", result(), smaller)


def test_an_unofficial_split_is_never_the_task(tmp_path):
    (model,) = collect(tmp_path, result(task="qqp", official=False), result(task="sst2")).models
    assert set(model.chosen) == {"qqp (unofficial split)", "sst2"}
    assert scores.average(model.mean, ("qqp", "sst2")).missing == ("qqp",)
