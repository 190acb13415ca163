"""A grid with its config, and a small program in the place of the one that would train its cells."""

import sys
from pathlib import Path

import pytest

from eelbert_jax.sweeping import grid

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
    """Write the grid's config file and return its path."""
    path = tmp_path / "grid.py"
    path.write_text(GRID)
    return str(path)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Let the small program run in the place of the Python that would pre-train."""
    path = tmp_path / "stand_in"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setattr(grid.sys, "executable", str(path))


def words_of(grid_file, workdir, *more, recipe="plain"):
    """Return the words of a sweep's command line."""
    return ["sweep", "--job=pretrain", f"--config={grid_file}:{recipe}", f"--workdir={workdir}", *more]


def plan(grid_file, workdir, *more, recipe="plain"):
    """Return the cells."""
    return grid.plan("pretrain", words_of(grid_file, workdir, *more, recipe=recipe)[1:], workdir)


def starts(workdir):
    """Return how often each cell was started."""
    return {path.parent.name: len(path.read_text().split()) for path in Path(workdir).glob("*/starts")}
