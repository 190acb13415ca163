"""The cells of a grid: their names and words, and grids that are refused before anything runs."""

import itertools
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.config_files import load_config, load_config_module
from eelbert_jax.errors import UserError
from eelbert_jax.sweeping import grid
from support.sweeps import GRID, plan, words_of


def test_cells_are_named_by_their_overrides_and_called_with_them(grid_file, tmp_path):
    found = plan(grid_file, tmp_path, "--config.total_steps", "9", "--noconfig.fail", recipe="seeds")
    assert [cell.name for cell in found[:2]] == ["rate=0.1,seed=0", "rate=0.1,seed=1"]
    assert found[1].words == (
        f"--config={grid_file}:seeds",
        "--config.total_steps",
        "9",
        "--noconfig.fail",
        "--config.opt.rate=0.1",
        "--config.seed=1",
        f"--workdir={tmp_path / 'rate=0.1,seed=1'}",
    )
    assert (found[4].config.total_steps, found[4].config.opt.rate, found[4].config.seed) == (9, 0.2, 1)


def test_short_names_are_the_shortest_that_no_other_key_has(grid_file):
    names = grid.short_names(load_config(grid_file))
    assert (names["opt.rate"], names["seed"], names["model.seed"]) == ("rate", "seed", "model.seed")
    assert len(set(names.values())) == len(names)


values = st.one_of(st.text(max_size=150), st.integers(), st.floats(allow_nan=False), st.booleans())


@hypothesis.given(st.lists(values, min_size=2, max_size=2, unique_by=str))
def test_names_fit_a_folder_and_stay_apart(pair):
    one, other = (grid.cell_name({"model.path": value}, {"model.path": "path"}) for value in pair)
    assert one != other
    for name in (one, other):
        assert 0 < len(name) <= grid.LONGEST_NAME
        assert not set(name) & set('/\\:*?"<>| \n\0')
        assert name not in (".", "..")


@pytest.mark.parametrize(
    ("body", "more", "said"),
    [
        ("pass", (), "has no cell"),
        ("add(**{'config.sized': 1})", (), r"a cell with config\.sized; .* keys that the config has"),
        ("add(size=1)", (), r"a cell with size; a cell's overrides are named config\.KEY"),
        ("add()", (), "a cell with no override"),
        ("add(**{'config.size': 1}); add(**{'config.size': 1})", (), "has the cell size=1 twice"),
        ("add(**{'config.size': 'many'})", (), "config.size=many"),
        ("add(**{'config.size': 1})", ("--config.size=2",), r"varies config\.size; leave it off"),
        ("add(**{'config.size': 1})", ("--config.sice=2",), r"did you mean 'config\.size'"),
    ],
)
def test_bad_grids_are_refused_before_anything_runs(tmp_path, body, more, said):
    path = tmp_path / "grid.py"
    path.write_text(GRID.partition("def sweep")[0] + f"def sweep(add):\n    {body}\n")
    with pytest.raises(UserError, match=said):
        plan(str(path), tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


GRID_OF_STARTS = (
    GRID.partition("def sweep")[0].replace(
        "config.fail", "config.start = config_dict.placeholder(str)\n    config.fail"
    )
    + """
def sweep(add):
    add(**{"config.start": None, "config.seed": 1})
    add(**{"config.start": "model", "config.seed": 1})
"""
)


def test_a_cell_can_leave_empty_what_another_sets(tmp_path, stand_in):
    (tmp_path / "starts.py").write_text(GRID_OF_STARTS)
    found = plan(tmp_path / "starts.py", tmp_path / "out")
    assert [cell.name for cell in found] == ["start=None,seed=1", "start=model,seed=1"]
    assert [cell.config.start for cell in found] == [None, "model"]
    assert not any("config.start" in word for word in found[0].words)
    assert main(words_of(tmp_path / "starts.py", tmp_path / "out")) == 0
    set_in_file = GRID_OF_STARTS.replace("placeholder(str)", "placeholder(str)\n    config.start = 'x'")
    (tmp_path / "starts.py").write_text(set_in_file)
    with pytest.raises(UserError, match="sets start to None, but the config has 'x' there"):
        plan(tmp_path / "starts.py", tmp_path / "other")


def test_googles_grid_is_twenty_cells():
    module = load_config_module("configs/sweeps/glue.py")
    grid = []
    module.sweep(lambda **overrides: grid.append(overrides), module.get_config("tiny,task=rte"))
    pairs = [(cell["config.batch_size"], cell["config.opt.learning_rate"]) for cell in grid]
    assert pairs == list(itertools.product((8, 16, 32, 64, 128), (3e-4, 1e-4, 5e-5, 3e-5)))
    assert module.get_config("tiny,task=rte").num_epochs == 4


def glue_tasks(glue_dir, capsys, **changes):
    module = load_config_module("configs/sweeps/glue.py")
    config = module.get_config("tiny,grid=seeds")
    config.data.glue_dir = str(glue_dir)
    config.sweep.update(changes)
    grid = []
    module.sweep(
        lambda **overrides: grid.append((overrides["config.task"], overrides["config.seed"])), config
    )
    return grid, capsys.readouterr().err


def test_seeds_of_every_task_with_files(tmp_path, capsys):
    for name in ("RTE/train.tsv", "RTE/dev.tsv", "QNLI/dev.tsv", "QQP/train_sample.tsv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    grid, said = glue_tasks(tmp_path, capsys, num_seeds=2)
    assert grid == [("rte", 0), ("rte", 1), ("qqp_sample", 0), ("qqp_sample", 1)]
    assert "Left out" in said
    assert "qnli" in said
    assert "rte" not in said.partition(": ")[2].split(", ")
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / "QQP" / name).write_text("")
    assert {task for task, _ in glue_tasks(tmp_path, capsys)[0]} == {"rte", "qqp"}
    assert glue_tasks(tmp_path, capsys, tasks="cola", num_seeds=1)[0] == [("cola", 0)]
    with pytest.raises(UserError, match="'colla'; did you mean 'cola'"):
        glue_tasks(tmp_path, capsys, tasks="colla")


def test_seeds_of_several_models(tmp_path):
    for name in ("full", "top-2"):
        (tmp_path / "models" / name).mkdir(parents=True)
    module = load_config_module("configs/sweeps/glue.py")
    config = module.get_config("tiny,grid=seeds")
    config.sweep.update(tasks="rte", num_seeds=2, models=str(tmp_path / "models" / "*"))
    grid = []
    module.sweep(lambda **overrides: grid.append(overrides), config)
    names = [(Path(cell["config.pretrained"]).name, cell["config.seed"]) for cell in grid]
    assert names == [("full", 0), ("full", 1), ("top-2", 0), ("top-2", 1)]
    config.sweep.models = str(tmp_path / "modles")
    with pytest.raises(UserError, match=r"Nothing is at .*modles'; .*--config\.sweep\.models"):
        module.sweep(lambda **overrides: None, config)


def test_unknown_grid():
    with pytest.raises(UserError, match="'grid=wide'; known: grid=rates, grid=seeds"):
        load_config("configs/sweeps/glue.py:tiny,grid=wide")
