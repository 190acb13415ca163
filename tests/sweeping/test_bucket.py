"""A sweep whose cells write to a bucket, each started by somebody else, as tasks of a Slurm array are."""

import csv
import io
import os
import signal
import subprocess
import sys
from urllib.parse import unquote

import pytest

from eelbert_jax import store
from eelbert_jax.__main__ import main
from eelbert_jax.training import digests
from eelbert_jax.workdir import CHECKPOINTS_NAME, REPORT_NAME
from support import buckets, forks
from support.processes import ROOT, finish, pretrain_words
from support.workdirs import figures

GRID = """
from eelbert_jax.config_files import load_config

def get_config(recipe="micro,setting=small"):
    return load_config(f"configs/pretrain.py:{recipe}")

def sweep(add):
    for seed in (1, 2):
        add(**{"config.seed": seed})
"""
IMPATIENT = f"""#!{sys.executable}
# Stands for a Python that believes sooner that a process is dead.
import sys
from eelbert_jax import lease
from eelbert_jax.__main__ import main
lease.STALE_SECONDS, lease.BEAT_SECONDS = 3.0, 0.5
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.slow
def test_of_an_array_in_a_bucket_one_cell_is_killed_and_alone_run_again(
    rows_dir, bucket, tmp_path, monkeypatch, capsys
):
    workdir = f"{buckets.URL}/sweep"
    (tmp_path / "grid.py").write_text(GRID)
    common = pretrain_words(rows_dir, workdir)[5:]
    words = ["sweep", "--job=pretrain", f"--config={tmp_path}/grid.py", *common]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").write_text(IMPATIENT)
    (tmp_path / "python").chmod(0o755)

    def array(number_of_cells):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(tmp_path / "python"))
            assert main([*words, "--slurm"]) == 0
        script = capsys.readouterr().out
        assert f"#SBATCH --array=0-{number_of_cells - 1}%1" in script
        return [
            subprocess.Popen(
                ["bash", "-c", script], env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}, text=True
            )
            for number in range(number_of_cells)
        ]

    tasks = array(2)

    def kill_the_second_as_it_saves(method, path):
        if "seed=2/checkpoints/8" in unquote(path):
            tasks[1].kill()
            return 0
        return None

    bucket.fault = kill_the_second_as_it_saves
    assert [status for status, _, _ in finish(tasks)] == [0, -signal.SIGKILL]
    bucket.serve()
    assert 4 in digests.steps(store.folder(f"{workdir}/seed=2") / CHECKPOINTS_NAME)
    assert [status for status, _, _ in finish(array(1))] == [0]
    log = (tmp_path / "logs" / "sweep" / "seed=2" / "log.txt").read_text()
    assert "Resuming from step 4 of gs://bucket/sweep/seed=2." in log
    assert main(words) == 0
    assert capsys.readouterr().out.count("finished before") == 2
    table = list(csv.DictReader(io.StringIO((store.folder(workdir) / "results.csv").read_text())))
    assert [(row["seed"], row["status"]) for row in table] == [("1", "finished"), ("2", "finished")]
    assert main(["report", f"--runs={workdir}", f"--workdir={tmp_path}/report"]) == 0
    assert (tmp_path / "report" / REPORT_NAME).read_text().startswith("# Report\n\nOf 2 pre-training")
    here = forks.start(
        [*pretrain_words(rows_dir, tmp_path / "here"), "--config.seed=2"], tmp_path / "here.log"
    )
    assert [status for status, _, _ in finish(here)] == [0]
    there = store.folder(f"{workdir}/seed=2")
    assert figures(there, "train_loss") == figures(tmp_path / "here", "train_loss")
    assert table[1]["heldout_loss"] == str(figures(tmp_path / "here", "heldout_loss")[20])
