"""Break runs whose workdir is a bucket in every way that a cluster and a store do: docs/reliability.md."""

import dataclasses
import itertools
import threading
import time

import jax
import numpy as np
import pytest

from eelbert_jax import cli, lease, store
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.finetune import finetune
from eelbert_jax.jobs.pretrain import pretrain
from eelbert_jax.objectives.masked_lm import MaskedLM
from eelbert_jax.record import Result
from eelbert_jax.reporting.runs import find_runs
from eelbert_jax.sweeping.results import finetuning_figures
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.digests import COMMITTED_NAME, MANIFEST_NAME
from eelbert_jax.workdir import RESULT_NAME
from support import buckets
from support.checkpoints import restored, save
from support.processes import pretrain_words
from support.small_runs import write_data
from support.workdirs import CHECKPOINTS_NAME, assert_same_run

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Ends a run at once; with a store that takes nothing more, it leaves what a killed process leaves."""


def at_step(monkeypatch, step: int, act) -> None:
    """Let a run call `act` before the batch that follows a step."""
    original = MaskedLM.next_batch

    def next_batch(objective, at):
        if at == step:
            act()
        return original(objective, at)

    monkeypatch.setattr(MaskedLM, "next_batch", next_batch)


def test_killed_refused_and_cut_off_a_run_is_that_of_a_folder_bit_for_bit(
    rows_dir, bucket, tmp_path, monkeypatch, capfd
):
    """Faults 1 and 18, and a store that is busy, fails, and is gone for a while."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.5)
    monkeypatch.setattr(lease, "STALE_SECONDS", 5.0)
    workdir = store.folder(f"{buckets.URL}/run")
    config = cli.parse("pretrain", pretrain_words(rows_dir, workdir)[4:]).config
    pretrain(config, tmp_path)

    def kill():
        deadline = time.monotonic() + 120
        while not (workdir / CHECKPOINTS_NAME / "8" / COMMITTED_NAME).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        with pytest.raises(UserError, match=f"Another process works in '{workdir}'"):
            pretrain(config, workdir)
        bucket.fault = lambda method, path: 403
        raise Killed

    with monkeypatch.context() as patch:
        at_step(patch, 10, kill)
        with pytest.raises(Killed):
            pretrain(config, workdir)
    now_and_then = itertools.cycle([429, *[None] * 20, 503, *[None] * 20])
    bucket.fault = lambda method, path: next(now_and_then)

    def leave():
        assert bucket.failed
        bucket.fault = lambda method, path: 0
        threading.Timer(8.0, bucket.serve).start()

    with monkeypatch.context() as patch:
        at_step(patch, 14, leave)
        figures = pretrain(config, workdir)
    told = capfd.readouterr()
    assert "for a sign of life of" in told.err
    assert f"Resuming from step 8 of {workdir}." in told.out
    assert_same_run(rows_dir, tmp_path, workdir)
    before = set(objects(str(workdir)))
    assert pretrain(config, workdir) == figures
    assert "is finished: nothing to do" in capfd.readouterr().out
    changed = before ^ set(objects(str(workdir)))
    assert all(name.startswith(lease.LEASE_NAME) for name in changed)


def test_a_fine_tuning_in_a_bucket_is_that_of_a_folder(bucket, tmp_path):
    """Its result, its model, and what a sweep and a report read of it."""
    write_data(tmp_path)
    config = cli.load_config("configs/glue.py:micro,task=custom")
    config.vocabulary, config.custom.train = f"{tmp_path}/vocab.txt", f"{tmp_path}/texts.tsv"
    config.custom.dev_every, config.num_epochs, config.batch_size, config.max_length = 3, 1, 16, 16
    here, there = tmp_path / "runs" / "a", store.folder(f"{buckets.URL}/runs/a")
    results = [dataclasses.replace(finetune(config, place), seconds=0.0) for place in (here, there)]
    assert results[0] == results[1]
    assert dataclasses.replace(Result.read(there / RESULT_NAME), seconds=0.0) == results[0]
    assert (there / "predictions" / "dev.jsonl").read_text() == (
        here / "predictions" / "dev.jsonl"
    ).read_text()
    jax.tree.map(np.testing.assert_array_equal, load(here).params, load(str(there)).params)
    figures = [finetuning_figures(place) for place in (here, there)]
    assert figures[0].value == figures[1].value
    found = [find_runs(str(place)).finetuning for place in (here.parent, there.parent)]
    assert [run.result.metrics for run in found[0]] == [run.result.metrics for run in found[1]]
    assert len(found[1]) == 1


def objects(url: str) -> list[str]:
    """Return the names of all objects below a URL."""
    with store.opened(url) as (system, name):
        return [path.removeprefix(f"{name}/") for path in system.find(name)]


def change(url: str, edit) -> None:
    with store.opened(url) as (system, path):
        data = edit(system.cat_file(path))
        system.rm_file(path) if data is None else system.pipe_file(path, data)


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def halve(data: bytes) -> bytes:
    return data[: len(data) // 2]


def remove(data: bytes) -> None:
    return None


@pytest.mark.parametrize(
    ("either_bucket", "name", "edit"),
    [
        ("bucket", "2/state/d/", flip),
        ("bucket", "2/state/d/", halve),
        ("bucket", "2/identity/", remove),
        ("bucket", f"2/{MANIFEST_NAME}", remove),
        ("s3_bucket", "2/state/d/", halve),
        ("s3_bucket", "2/identity/", remove),
    ],
    indirect=["either_bucket"],
)
def test_a_damaged_object_is_named_and_the_step_before_is_taken(either_bucket, capfd, name, edit):
    """Faults 7 and 8."""
    place = f"{either_bucket.url}/checkpoints"
    save(place, 1, 2)
    change(f"{place}/{next(found for found in objects(place) if found.startswith(name))}", edit)
    assert restored(place) == 1
    assert restored(place, create=True) == 1
    assert f"Checkpoint 2 in {place} is damaged" in capfd.readouterr().err
    save(place, 2)
    assert restored(place) == 2


def test_old_steps_go_as_in_a_folder(s3_bucket, tmp_path):
    """Where Orbax does not see to it; across starts, which begin with an empty folder here."""
    for steps in ((5, 10), (15, 20, 25)):
        for place in (f"{s3_bucket.url}/checkpoints", tmp_path):
            save(place, *steps, keep=2, keep_every_steps=10)
    assert sorted(store.listing(f"{s3_bucket.url}/checkpoints")) == sorted(
        path.name for path in tmp_path.iterdir() if path.is_dir()
    )


def test_a_step_without_its_last_object_is_none(either_bucket, capfd):
    place = f"{either_bucket.url}/checkpoints"
    save(place, 1, 2)
    change(f"{place}/2/{COMMITTED_NAME}", remove)
    assert restored(place) == 1, "a reader passes it over"
    with Checkpoints(place):
        assert not [found for found in objects(place) if found.startswith("2")]
    assert restored(place) == 1
    assert "damaged" not in capfd.readouterr().err
