"""The sweep: names, what counts as finished, one process a cell, crashes and kills that cost one cell."""

import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from eelbert_jax import cli
from eelbert_jax.__main__ import main
from eelbert_jax.config_files import PACKAGE, load_config, load_config_module
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import sweep
from eelbert_jax.sweeping import grid as cells
from eelbert_jax.sweeping import processes, results
from eelbert_jax.vocabulary import SPECIAL_TOKENS
from support.run_folders import result

GRID = """
from ml_collections import config_dict

def get_config(recipe="plain"):
    config = config_dict.ConfigDict({"recipe": recipe, "total_steps": 4, "seed": 0, "size": 8})
    config.opt = config_dict.ConfigDict({"rate": 0.1})
    config.model = config_dict.ConfigDict({"seed": 0, "path": "a/b"})
    config.fail = False
    config.secs = 0.0
    return config

def sweep(add, config):
    if config.recipe == "seeds":
        for rate in (0.1, 0.2):
            for seed in range(3):
                add(**{"config.opt.rate": rate, "config.seed": seed})
    elif config.recipe == "size":
        for size in (1, 2, 3, 4):
            for rate in (0.1, 0.2):
                add(**{"config.size": size, "config.opt.rate": rate})
    else:
        add(**{"config.size": 1})
        add(**{"config.size": 2, "config.fail": True})
        add(**{"config.size": 3})
"""

STAND_IN = """#!{python} -S
# Stands for a pre-training: takes its words, counts its starts, leaves the last step's record and checkpoint.
import json, os, sys, time
values = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[1:])
workdir = values["workdir"]
with open(workdir + "/starts", "a") as starts:
    starts.write(f"{{os.getpid()}}\\n")
print("words", *sys.argv[1:], flush=True)
time.sleep(float(values.get("config.secs", 0)))
if values.get("config.fail") == "True":
    print("error: no such luck.", file=sys.stderr)
    sys.exit(2)
size, seed = int(values.get("config.size", 8)), int(values.get("config.seed", 0))
loss = size + seed / 8 + float(values.get("config.opt.rate", 0))
steps = int(values.get("config.total_steps", 4))
with open(workdir + "/metrics.jsonl", "w") as metrics:
    metrics.write(json.dumps({{"step": steps, "train_loss": 0.0}}) + "\\n")
    metrics.write(json.dumps({{"step": steps, "heldout_loss": loss, "heldout_accuracy": 0.5}}) + "\\n")
os.makedirs(f"{{workdir}}/checkpoints/{{steps}}", exist_ok=True)
"""


@pytest.fixture
def grid_file(tmp_path):
    path = tmp_path / "grid.py"
    path.write_text(GRID)
    return str(path)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Let a small program run in the place of the Python that would pre-train."""
    path = tmp_path / "stand_in"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setattr(cells.sys, "executable", str(path))
    return path


def words_of(grid_file, workdir, *more, recipe="plain"):
    return ["sweep", "--job=pretrain", f"--config={grid_file}:{recipe}", f"--workdir={workdir}", *more]


def plan(grid_file, workdir, *more, recipe="plain"):
    return cells.plan("pretrain", words_of(grid_file, workdir, *more, recipe=recipe)[1:], workdir)


def starts(workdir):
    return {path.parent.name: len(path.read_text().split()) for path in Path(workdir).glob("*/starts")}


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


def test_a_config_file_of_before_the_rooms_still_loads(tmp_path):
    text = "from eelbert_jax.jobs.command_line import load_config, parse_recipe\n"
    (tmp_path / "old.py").write_text(text + GRID.replace('recipe="plain"', 'recipe="seeds"'))
    assert len(plan(tmp_path / "old.py", tmp_path / "out", recipe="seeds")) == 6


def test_short_names_are_the_shortest_that_no_other_key_has(grid_file):
    names = cells.short_names(load_config(grid_file))
    assert (names["opt.rate"], names["seed"], names["model.seed"]) == ("rate", "seed", "model.seed")
    assert len(set(names.values())) == len(names)


values = st.one_of(st.text(max_size=150), st.integers(), st.floats(allow_nan=False), st.booleans())


@hypothesis.given(st.lists(values, min_size=2, max_size=2, unique_by=str))
def test_names_fit_a_folder_and_stay_apart(pair):
    one, other = (cells.cell_name({"model.path": value}, {"model.path": "path"}) for value in pair)
    assert one != other
    for name in (one, other):
        assert 0 < len(name) <= cells.LONGEST_NAME
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


def test_config_without_a_grid_and_unknown_choices(grid_file, tmp_path):
    with pytest.raises(UserError, match=r"has no function sweep\(add\)"):
        cells.plan("pretrain", ["--config=configs/pretrain.py", "--workdir=w"], tmp_path)
    with pytest.raises(UserError, match="--job='bake' cannot be swept; known: pretrain, finetune"):
        cells.plan("bake", [f"--config={grid_file}", "--workdir=w"], tmp_path)
    for flag, said in (
        ("--processes=0", "counts from 1"),
        ("--processes=two", "processes"),
    ):
        with pytest.raises(UserError, match=said):
            sweep.main(words_of(grid_file, tmp_path / "out", flag)[1:])


def test_a_failing_cell_is_reported_and_the_others_go_on(grid_file, tmp_path, stand_in, capsys):
    workdir = tmp_path / "out"
    assert main(words_of(grid_file, workdir)) == 2
    said = capsys.readouterr()
    assert "size=2,fail=True: exit status 2: error: no such luck." in said.out
    assert "1 of 3 cells have no result" in said.err
    assert str(workdir / "size=2,fail=True" / "log.txt") in said.err
    rows = list(csv.DictReader(io.StringIO((workdir / "results.csv").read_text())))
    assert [row["heldout_loss"] for row in rows] == ["1.0", "", "3.0"]
    assert [row["status"] for row in rows] == ["finished", "failed: exit status 2", "finished"]
    assert (workdir / "results.md").read_text() in said.out
    assert "words -m eelbert_jax pretrain" in (workdir / "size=1" / "log.txt").read_text()


def test_finished_cells_are_not_run_again(grid_file, tmp_path, stand_in, capsys):
    workdir = tmp_path / "out"
    assert main(words_of(grid_file, workdir)) == 2
    (workdir / "size=3" / "metrics.jsonl").write_text('{"step": 2, "heldout_loss": 3.0}\n{"step": 4, "heldo')
    first = (workdir / "results.csv").read_text()
    assert main(words_of(grid_file, workdir)) == 2
    assert starts(workdir) == {"size=1": 1, "size=2,fail=True": 2, "size=3": 2}
    assert "size=1: heldout_loss 1.0000  finished before" in capsys.readouterr().out
    assert (workdir / "results.csv").read_text() == first


def test_a_longer_run_is_not_finished_by_a_shorter_one(grid_file, tmp_path, stand_in):
    workdir = tmp_path / "out"
    main(words_of(grid_file, workdir))
    main(words_of(grid_file, workdir, "--config.total_steps=8"))
    assert starts(workdir) == {"size=1": 2, "size=2,fail=True": 2, "size=3": 2}


def test_a_finished_run_of_other_settings_is_refused(grid_file, tmp_path, stand_in):
    workdir = tmp_path / "out"
    main(words_of(grid_file, workdir))
    cell = plan(grid_file, workdir)[2]
    cli.write_config(cell.config, cell.workdir)
    assert results.read_figures(cell, ()).value == 3.0
    with pytest.raises(UserError, match=r"other settings: opt\.rate: 0\.1, now 0\.5\. Use another --workdir"):
        sweep.main(words_of(grid_file, workdir, "--config.opt.rate=0.5")[1:])
    assert starts(workdir)["size=1"] == 1  # said before anything ran


@pytest.mark.parametrize("job", ["pretrain", "finetune"])
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


def test_results_over_seeds(grid_file, tmp_path, stand_in):
    workdir = tmp_path / "out"
    assert main(words_of(grid_file, workdir, "--config.size=0", "--processes=3", recipe="seeds")) == 0
    cell_lines, seed_lines = (
        [line for line in part.splitlines() if line.startswith("|")]
        for part in (workdir / "results.md").read_text().split("### Over seeds")
    )
    assert len(cell_lines) == 2 + 6
    assert seed_lines == [
        "| rate | figure | mean | sd | median | n | best |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| 0.1 | heldout_loss | 0.225 | 0.125 | 0.225 | 3 | best |",
        "| 0.2 | heldout_loss | 0.325 | 0.125 | 0.325 | 3 | - |",
    ]


def test_a_fine_tuning_is_finished_by_its_whole_result(tmp_path):
    assert results.finetuning_figures(tmp_path, None) is None
    text = json.dumps(result(metrics={"accuracy": 0.75, "f1": 0.5}))
    (tmp_path / "result.json").write_text(text[:-9])
    assert results.finetuning_figures(tmp_path, None) is None
    (tmp_path / "result.json").write_text(text)
    figures = results.finetuning_figures(tmp_path, None)
    assert (figures.main, figures.value, figures.values["f1"]) == ("accuracy", 0.75, 0.5)
    assert figures.values["best_step"] == 600


def outcomes(job, *settings):
    """Return finished cells with the figure that each setting's `value` says; None: it failed."""
    config = load_config("configs/sweeps/glue.py:tiny")
    found = []
    for number, setting in enumerate(settings):
        value = setting.pop("value")
        cell = cells.Cell(str(number), setting, job, (), Path(), config)
        found.append(results.Outcome(cell, "", None if value is None else results.Figures({"f": value}, "f")))
    return found


def test_the_best_cell_is_marked():
    values = [{"batch_size": size, "value": value} for size, value in ((8, 0.3), (16, 0.7), (32, None))]
    marks = [record["best"] for record in results.cell_records(outcomes("finetune", *map(dict, values)))]
    assert marks == [None, "best", None]
    marks = [record["best"] for record in results.cell_records(outcomes("pretrain", *map(dict, values)))]
    assert marks == ["best", None, None], "of losses the lowest"


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


def test_print_runs_nothing(grid_file, tmp_path, stand_in, capsys):
    workdir = tmp_path / "out"
    assert main(words_of(grid_file, workdir, "--print")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "# size=1: to run"
    assert lines[1].endswith(f"--config.size=1 --workdir={workdir / 'size=1'}")
    assert len(lines) == 6
    assert not workdir.exists()


def test_slurm_script_runs_the_unfinished_cells(grid_file, tmp_path, stand_in, capsys):
    workdir = tmp_path / "with space"
    main(words_of(grid_file, workdir))
    capsys.readouterr()
    assert main(words_of(grid_file, workdir, "--config.total_steps=8", "--slurm", "--processes=2")) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --array=0-2%2" in script
    env = {**os.environ, "SLURM_ARRAY_TASK_ID": "2"}
    subprocess.run(["bash", "-c", script], env=env, check=True)
    assert starts(workdir) == {"size=1": 1, "size=2,fail=True": 1, "size=3": 2}
    main(words_of(grid_file, workdir, "--config.total_steps=8", "--slurm"))
    assert "#SBATCH --array=0-1%1" in capsys.readouterr().out


class Command:
    """A task for `processes`: a line of shell."""

    def __init__(self, workdir: Path, line: str) -> None:
        self.workdir = workdir
        self.command = ("sh", "-c", line)


def run_commands(tasks, count):
    ends = []
    processes.run_all(tasks, count, lambda task, how: ends.append((task, how)))
    return ends


@pytest.mark.parametrize("count", [1, 2, 9])
def test_as_many_processes_as_asked_for(tmp_path, count):
    line = f"touch {tmp_path}/$$.on; ls {tmp_path}/*.on | wc -l; sleep 0.2; rm {tmp_path}/$$.on"
    ends = run_commands([Command(tmp_path / str(i), line) for i in range(4)], count)
    assert [how.status for _, how in ends] == [0] * 4
    most = max(int(processes.last_line(tmp_path / str(i))) for i in range(4))
    assert (most == 1) if count == 1 else (1 < most <= count)


def test_signals_and_statuses_are_told(tmp_path):
    ends = run_commands([Command(tmp_path / "a", "kill -9 $$"), Command(tmp_path / "b", "exit 3")], 1)
    assert [str(how) for _, how in ends] == ["killed by signal 9", "exit status 3"]


def test_a_folder_in_which_a_process_works_is_left_alone(tmp_path):
    ends = run_commands([Command(tmp_path, "sleep 0.5; echo first"), Command(tmp_path, "echo second")], 2)
    assert [how.status for _, how in ends] == [None, 0]
    assert (tmp_path / "log.txt").read_text() == "first\n"


def test_stopping_ends_the_processes_and_their_children(tmp_path):
    def stop(_, how):
        raise KeyboardInterrupt

    tasks = [
        Command(tmp_path / "a", f"sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' & wait"),
        Command(tmp_path / "b", f"until [ -s {tmp_path}/child ]; do :; done"),
    ]
    with pytest.raises(KeyboardInterrupt):
        processes.run_all(tasks, 2, stop)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)


def test_interrupted_sweep_stops_its_cells_and_continues(grid_file, tmp_path, stand_in, capsys):
    workdir = tmp_path / "out"

    def stop_when_two_run():
        while sum(starts(workdir).values()) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop_when_two_run, daemon=True)
    stopper.start()
    assert main(words_of(grid_file, workdir, "--config.secs=60", "--processes=2", recipe="size")) == 130
    stopper.join()
    assert "Stopped with 0 cells finished. The same command continues" in capsys.readouterr().out
    for path in workdir.glob("*/starts"):
        assert not Path(f"/proc/{path.read_text().strip()}").exists()
    assert main(words_of(grid_file, workdir, "--processes=4", recipe="size")) == 0
    names = [cell.name for cell in plan(grid_file, workdir, recipe="size")]
    assert starts(workdir) == {name: 2 if i < 2 else 1 for i, name in enumerate(names)}


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


def test_unknown_grid():
    with pytest.raises(UserError, match="'grid=wide'; known: grid=rates, grid=seeds"):
        load_config("configs/sweeps/glue.py:tiny,grid=wide")


@pytest.mark.slow
def test_a_killed_sweep_of_real_fine_tunings_continues(tmp_path, capsys):
    """Kill -9 of the sweep leaves its cells behind: they are left alone, then counted, then can be asked."""
    words = [*SPECIAL_TOKENS, "the", "film", "was", "good", "bad", "fine", "poor", "and", "long", "."]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    rows = [
        f"the film was {first} and {second} .\t{label}"
        for label, tones in (("up", ("good", "fine")), ("down", ("bad", "poor")))
        for first, second in itertools.product(tones, (*tones, "long"))
    ]
    (tmp_path / "train.tsv").write_text("\n".join(["sentence\tlabel", *rows * 20]) + "\n")
    workdir = tmp_path / "out"
    argv = [
        "sweep",
        "--config=configs/sweeps/glue.py:micro,task=custom,grid=seeds",
        f"--config.custom.train={tmp_path / 'train.tsv'}",
        "--config.custom.dev_every=7",
        f"--config.vocabulary={tmp_path / 'vocab.txt'}",
        "--config.num_epochs=8",
        "--config.batch_size=8",
        "--config.opt.learning_rate=2e-3",
        "--config.max_length=16",
        "--config.sweep.num_seeds=2",
        "--processes=2",
        f"--workdir={workdir}",
    ]
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    killed = subprocess.Popen([sys.executable, "-m", "eelbert_jax", *argv], env=env, cwd=tmp_path)
    found = [workdir / f"task=custom,seed={seed}" for seed in (0, 1)]
    wait_for(lambda: all((folder / "log.txt").is_file() for folder in found))
    killed.kill()
    killed.wait()
    assert main(argv) == 2
    assert "another process works in its folder" in capsys.readouterr().out
    wait_for(lambda: all((folder / "result.json").is_file() for folder in found))
    wait_for(lambda: main(argv) == 0)
    said = capsys.readouterr().out
    assert said.count("finished before") >= 2
    assert "| custom | accuracy | 1 | 0 | 1 | 2 | - |" in said
    for text, label in (("The film was good.", "up"), ("the film was long and poor", "down")):
        assert main(["predict", f"--checkpoint={found[0]}", f"--text={text}"]) == 0
        assert capsys.readouterr().out.startswith(f"{label}\t")


def wait_for(condition):
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
