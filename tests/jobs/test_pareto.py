"""`eelbert pareto`: the score that a run recorded, and those of its coarser weights."""

import csv

import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.record import Result
from support.small_runs import classify


def test_float32_scores_as_the_run_did(tmp_path):
    classify(tmp_path, tmp_path)
    run = tmp_path / "run"
    assert main(["pareto", f"--runs={run}", f"--workdir={tmp_path / 'out'}"]) == 0
    with (tmp_path / "out" / "pareto.csv").open() as file:
        found = {row["weights"]: row for row in csv.DictReader(file)}
    result = Result.read(run / "result.json")
    assert float(found["float32"]["score"]) == pytest.approx(result.metrics[result.main_metric])
    sizes = {weights: int(row["num_bytes"]) for weights, row in found.items()}
    assert sizes["int8"] < sizes["float16"] == sizes["float32"] / 2
    assert (tmp_path / "out" / "pareto.png").is_file()


def test_folders_without_a_run(tmp_path, capsys):
    assert main(["pareto", f"--workdir={tmp_path / 'out'}"]) == 2
    assert "pareto needs runs: add --runs=DIR" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["pareto", f"--runs={tmp_path / 'empty'}", f"--workdir={tmp_path / 'out'}"]) == 2
    assert "No run to score under" in capsys.readouterr().err
