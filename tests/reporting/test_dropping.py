"""The report on dropped layers, checked by hand: seeds together, points lost, layers that can go."""

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.jobs.report import report
from eelbert_jax.reporting import dropping, runs
from support.run_folders import result, write_results

ORIGIN = "runs/tiny-table"


def smaller(value, kept, strategy="top", order=("drop", "tune"), task="sst2", **changes):
    record = {"origin": ORIGIN, "num_layers": 6, "kept_layers": kept, "strategy": strategy, "order": order}
    start = {"workdir": f"runs/{strategy}-{len(kept)}", "step": None}
    return result(metrics=value, task=task, dropped=record, pretrained=start, **changes)


@pytest.fixture
def folder(tmp_path):
    return write_results(
        tmp_path / "runs",
        *(result(metrics=0.80 + 0.02 * seed, seed=seed) for seed in range(2)),
        result(metrics=0.90, num_epochs=9),
        *(smaller(0.78 + 0.02 * seed, [1, 2, 3, 4], seed=seed) for seed in range(2)),
        smaller(0.785, [1, 2, 3]),
        smaller(0.60, [5, 6], "bottom"),
        smaller(0.70, [1, 2, 3, 4], order=("tune", "drop"), num_epochs=0),
        smaller(0.60, [1, 2, 3, 4], task="rte"),
    )


def row(table, *start):
    (found,) = [line for line in table.rows if line[: len(start)] == start]
    return found[len(start) :]


def test_scores_of_seeds_stand_against_the_full_models_by_the_same_recipe(folder):
    found = dropping.smaller_models(runs.find_runs(str(folder)).finetuning)
    table, within, *_ = dropping.tables(found)
    assert table.columns == ("strategy", "K", "layers dropped", "MB", "RTE, accuracy", "SST-2, accuracy")
    assert row(table, "all layers", "0", "-") == ("17.5", "**missing**", "0.810 ± 0.014, n=2")
    assert row(table, "top", "2", "5, 6")[1:] == ("0.600, n=1", "0.790 ± 0.014, n=2 (-2.0)")
    assert row(table, "top", "3", "4, 5, 6")[1:] == ("-", "0.785, n=1 (-2.5)")
    # Evaluated alone, it stands against the recipe with most seeds.
    assert row(table, "top (tune, drop)", "2", "5, 6")[1:] == ("-", "0.700, n=1 (-11.0)")
    assert row(table, "majority class")[-2:] == ("0.530", "0.500")
    assert row(within, "top") == ("2, 3", "-", "0 / 2 / 3")
    assert row(within, "bottom") == ("4", "-", "0 / 0 / 0")


def test_the_report_has_them_apart_from_whole_models(folder, tmp_path):
    text = report(str(folder), tmp_path / "out").read_text()
    whole, _, dropped = text.partition("## Dropped layers")
    assert "0.785" not in whole
    assert "| top | 3 | 4, 5, 6 |" in dropped
    assert "| BERT | 86.19 [P] |" in dropped
    assert (tmp_path / "out" / "dropping.png").stat().st_size > 10_000
    header, *lines = (tmp_path / "out" / "dropping.csv").read_text().splitlines()
    assert header.startswith("model,strategy,num_dropped,kept_layers,task,metric,mean")
    assert len(lines) == 5


def test_a_seed_counts_once(tmp_path):
    folder = write_results(tmp_path, smaller(0.7, [1]), smaller(0.8, [1]))
    with pytest.raises(UserError, match="are the same seed"):
        dropping.smaller_models(runs.find_runs(str(folder)).finetuning)
