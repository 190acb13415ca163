"""What cells have come to: what counts as finished, and which is the best."""

import json
from pathlib import Path

import pytest

from eelbert_jax import cli
from eelbert_jax.__main__ import main
from eelbert_jax.config_files import load_config
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import sweep
from eelbert_jax.sweeping import grid, results
from support.run_folders import result
from support.sweeps import plan, starts, words_of


def test_a_finished_run_of_other_settings_is_refused(grid_file, tmp_path, stand_in):
    workdir = tmp_path / "out"
    main(words_of(grid_file, workdir))
    cell = plan(grid_file, workdir)[2]
    cli.write_config(cell.config, cell.workdir)
    assert results.read_figures(cell, ()).value == 3.0
    with pytest.raises(UserError, match=r"other settings: opt\.rate: 0\.1, now 0\.5\. Use another --workdir"):
        sweep.main(words_of(grid_file, workdir, "--config.opt.rate=0.5")[1:])
    assert starts(workdir)["size=1"] == 1  # said before anything ran


@pytest.mark.parametrize("job", ["pretrain", "distill", "finetune"])
def test_what_a_job_lets_change_changes_no_cell(grid_file, tmp_path, stand_in, job):
    free = sweep.free_settings(job)
    assert {"data.", "log_every_steps", "sweep."} <= set(free)
    workdir = tmp_path / "out"
    main(words_of(grid_file, workdir))
    cell = plan(grid_file, workdir)[2]
    cli.write_config(cell.config, cell.workdir)
    path = cell.workdir / "config.json"
    moved = json.loads(path.read_text()) | {"log_every_steps": 7, "data": {"rows": "moved"}}
    path.write_text(json.dumps(moved))
    with cell.config.unlocked():
        cell.config.log_every_steps, cell.config.data = 9, {"rows": "here"}
    assert results.read_figures(cell, free).value == 3.0
    with pytest.raises(UserError, match="log_every_steps: 7, now 9"):
        results.read_figures(cell, ())


def test_a_fine_tuning_is_finished_by_its_whole_result(tmp_path):
    assert results.finetuning_figures(tmp_path) is None
    text = json.dumps(result(metrics={"accuracy": 0.75, "f1": 0.5}))
    (tmp_path / "result.json").write_text(text[:-9])
    assert results.finetuning_figures(tmp_path) is None
    (tmp_path / "result.json").write_text(text)
    figures = results.finetuning_figures(tmp_path)
    assert (figures.main, figures.value, figures.values["f1"]) == ("accuracy", 0.75, 0.5)
    assert figures.values["best_step"] == 600


def outcomes(job, *settings):
    """Return finished cells with the figure that each setting's `value` says; None: it failed."""
    config = load_config(
        "configs/distill.py:minialbert" if job == "distill" else "configs/sweeps/glue.py:tiny"
    )
    found = []
    for number, setting in enumerate(settings):
        value = setting.pop("value")
        cell = grid.Cell(str(number), setting, job, (), Path(), config)
        found.append(results.Outcome(cell, "", None if value is None else results.Figures({"f": value}, "f")))
    return found


def test_the_best_cell_is_marked():
    values = [{"batch_size": size, "value": value} for size, value in ((8, 0.3), (16, 0.7), (32, None))]
    marks = [record["best"] for record in results.cell_records(outcomes("finetune", *map(dict, values)))]
    assert marks == [None, "best", None]
    for job in ("pretrain", "distill"):  # the latter with a teacher's predictions
        marks = [record["best"] for record in results.cell_records(outcomes(job, *map(dict, values)))]
        assert marks == ["best", None, None], "of losses the lowest"


def test_a_distillation_of_states_is_read_as_a_pretraining(tmp_path):
    config = load_config("configs/distill.py:minialbert")
    config.total_steps = 2
    cell = grid.Cell("0", {"batch_size": 8}, "distill", (), tmp_path, config)
    assert results.read_figures(cell, ()) is None
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"step": 2, "heldout_loss": 3.0}\n')
    assert results.read_figures(cell, ()).main == "heldout_loss"


def test_of_several_tasks_each_has_its_best_and_of_seeds_the_best_mean():
    tried = ((1, 0, 0.9), (1, 1, 0.1), (2, 0, 0.6), (2, 1, 0.8))
    found = outcomes(
        "finetune",
        *({"task": "rte", "batch_size": size, "seed": seed, "value": value} for size, seed, value in tried),
        {"task": "cola", "batch_size": 1, "seed": 0, "value": 0.0},
        {"task": "cola", "batch_size": 1, "seed": 1, "value": 0.1},
    )
    assert [record["best"] for record in results.cell_records(found)] == ["best", *[None] * 4, "best"]
    assert [record["best"] for record in results.seed_records(found)] == [None, "best", None]
    assert results.tables(found)[1].rows[1][-1] == "best"
