"""What a run has left in its workdir, for the tests that break runs: losses, checkpoints, states, bytes."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.jobs.pretrain import make_fit_config, make_objective
from eelbert_jax.model.config import identity
from eelbert_jax.training import sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.fit import state_like
from eelbert_jax.training.optimizer import make_optimizer
from eelbert_jax.training.step import TrainState
from eelbert_jax.training.writer import Writer, read_metrics
from eelbert_jax.workdir import CHECKPOINTS_NAME, METRICS_NAME
from support.processes import pretrain_words


class Cut(Exception):
    """Stands for the end of a run at an unforeseen step."""


@contextlib.contextmanager
def cut_at(step: int) -> Iterator[None]:
    """End the run in the block where it would record `step`."""
    original = Writer.scalars

    def scalars(self, at, values):
        if at == step:
            raise Cut
        original(self, at, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "scalars", scalars)
        with pytest.raises(Cut):
            yield


def figures(workdir: Path, name: str) -> dict[int, float]:
    """Return step -> figure of all records that have it."""
    records = read_metrics(workdir / METRICS_NAME)
    return {record["step"]: record[name] for record in records if name in record}


def saved_steps(workdir: Path) -> list[int]:
    """Return the steps of the committed checkpoints, oldest first."""
    return sorted(
        int(path.name) for path in (workdir / CHECKPOINTS_NAME).glob("[0-9]*") if path.name.isdigit()
    )


def checkpoint(workdir: Path, step: int) -> Path:
    return workdir / CHECKPOINTS_NAME / str(step)


def cut_back(finished: Path, workdir: Path, step: int) -> Path:
    """Copy a run without the checkpoints after `step`, as a kill right after that save leaves it."""
    shutil.copytree(finished, workdir)
    for later in saved_steps(workdir):
        if later > step:
            shutil.rmtree(checkpoint(workdir, later))
    return workdir


def digests(workdir: Path) -> dict[str, str]:
    """Return the SHA-256 of every file by its path."""
    files = sorted(path for path in workdir.rglob("*") if path.is_file())
    return {str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def checkpoint_terms(rows_dir: Path) -> tuple[TrainState, dict]:
    """Return the shapes and the identity that the checkpoints of `processes.pretrain_words` have."""
    config = cli.parse("pretrain", pretrain_words(rows_dir, Path("unused"))[4:]).config
    rows = Rows.open(rows_dir, "train")
    layout = sharding.Layout(sharding.make_mesh(1))
    objective = make_objective(config, rows.vocabulary, rows.row_length, layout)
    optimizer = make_optimizer(make_fit_config(config, objective).optimizer, config.total_steps)
    like = state_like(objective, optimizer, layout)
    return like, identity(objective.config, rows.vocabulary, rows.lowercase)


def newest_state(rows_dir: Path, workdir: Path) -> TrainState:
    with Checkpoints(workdir / CHECKPOINTS_NAME, create=False) as checkpoints:
        return checkpoints.restore(*checkpoint_terms(rows_dir))


def assert_same_values(one: TrainState, other: TrainState) -> None:
    """Demand the same parameters and slots, bit for bit."""
    pairs = zip(*(jax.tree.leaves((s.params, s.opt_state)) for s in (one, other)), strict=True)
    for left, right in pairs:
        np.testing.assert_array_equal(left, right)


def assert_same_run(rows_dir: Path, one: Path, other: Path) -> None:
    """Demand the same losses at the same steps and the same last state, bit for bit."""
    for name in ("train_loss", "heldout_loss"):
        assert figures(one, name) == figures(other, name)
    states = [newest_state(rows_dir, workdir) for workdir in (one, other)]
    assert int(states[0].step) == int(states[1].step)
    assert_same_values(*states)
