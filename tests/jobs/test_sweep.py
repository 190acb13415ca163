"""The sweep as a command: crashes and kills cost one cell, the same command continues."""

import csv
import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.config_files import PACKAGE
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import sweep
from eelbert_jax.sweeping import grid
from eelbert_jax.vocabulary import SPECIAL_TOKENS
from support.sweeps import plan, starts, words_of


def test_config_without_a_grid_and_unknown_choices(grid_file, tmp_path):
    with pytest.raises(UserError, match=r"has no function sweep\(add\)"):
        grid.plan("pretrain", ["--config=configs/pretrain.py", "--workdir=w"], tmp_path)
    with pytest.raises(UserError, match="--job='bake' cannot be swept; known: pretrain, distill, finetune"):
        grid.plan("bake", [f"--config={grid_file}", "--workdir=w"], tmp_path)
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
