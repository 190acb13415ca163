"""Break real processes of a run whose workdir is a bucket of S3: docs/reliability.md."""

import itertools
import signal

import pytest

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.lease import LEASE_NAME
from eelbert_jax.training import checkpoint, digests, staged
from eelbert_jax.workdir import CHECKPOINTS_NAME
from support import buckets, forks
from support.processes import finish, pretrain_words, wait_until, wait_until_held
from support.workdirs import assert_same_run

pytest.importorskip("s3fs")
WORKDIR = store.folder(f"{buckets.S3_URL}/run")
CHECKPOINTS = WORKDIR / CHECKPOINTS_NAME


@pytest.fixture
def run(rows_dir, tmp_path):
    """Return what starts the run in the bucket, under a name."""
    words = pretrain_words(rows_dir, WORKDIR)
    yield lambda name, **options: forks.start(words, tmp_path / name, stale_seconds=3.0, **options)
    forks.kill_left()


def snapshot() -> dict[str, bytes]:
    """Return all objects of the workdir but the lease."""
    with store.opened(str(WORKDIR)) as (system, name):
        return {path: system.cat_file(path) for path in system.find(name) if f"/{LEASE_NAME}/" not in path}


@pytest.mark.slow
def test_killed_in_a_save_stopped_and_followed_a_run_is_that_of_a_folder_bit_for_bit(
    rows_dir, s3_bucket, tmp_path, run, monkeypatch
):
    """Faults 1, 2, 19 and a store that says 503 for a while."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    uncut = forks.start(pretrain_words(rows_dir, tmp_path / "uncut"), tmp_path / "log")
    assert finish(uncut)[0][0] == 0
    [first] = run("first")
    puts = itertools.count()

    def kill(method, path):
        if method == "PUT" and f"/{CHECKPOINTS_NAME}/8/" in path and next(puts) == 7:
            first.kill()
            return 0
        return None

    s3_bucket.fault = kill
    told, _ = first.communicate()
    s3_bucket.serve()
    assert first.returncode == -signal.SIGKILL, told
    assert store.listing(str(CHECKPOINTS / "8")), "it died in the midst of a save"
    assert digests.steps(CHECKPOINTS) == [4, 0]

    gate = tmp_path / "gate"
    [second] = run("second", held_at=(10, gate))
    wait_until_held(gate, [second])
    wait_until(lambda: 8 in digests.steps(CHECKPOINTS), [second])
    second.send_signal(signal.SIGSTOP)
    assert f"Resuming from step 4 of {WORKDIR}." in second.told()

    busy = itertools.count()

    def refuse(method, path):
        is_of_save = method == "PUT" and f"/{CHECKPOINTS_NAME}/12/" in path
        return 503 if is_of_save and 2 <= next(busy) < 5 else None

    s3_bucket.fault = refuse
    [(status, told, _)] = finish(run("third"))
    assert status == 0, told
    assert f"Resuming from step 8 of {WORKDIR}." in told
    assert "cannot be written" in told
    assert_same_run(rows_dir, tmp_path / "uncut", WORKDIR)

    before = snapshot()
    gate.touch()
    second.send_signal(signal.SIGCONT)
    told, _ = second.communicate()
    assert second.returncode == 2, told
    assert f"error: The lease of {WORKDIR} was taken over by " in told
    assert snapshot() == before
    assert len(list((tmp_path / "cache").rglob("checkpoints/*"))) <= 1, "what killed starts left is removed"


def test_without_a_place_here_it_says_how_to_name_one(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot lie in .* \(Not a directory\): .* XDG_CACHE_HOME"):
        staged.make_folder(CHECKPOINTS)


def test_several_processes_are_refused(monkeypatch):
    """The arrays of other hosts are not on this one's disk."""
    monkeypatch.setattr(checkpoint.jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match=r"s3://bucket/run/checkpoints: s3:// takes .* one process"):
        checkpoint.Checkpoints(CHECKPOINTS)
