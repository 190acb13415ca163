"""Break real processes of a run whose workdir is a bucket: docs/reliability.md."""

import functools
import random
import re
import signal
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from eelbert_jax import store
from eelbert_jax.lease import LEASE_NAME
from eelbert_jax.training import digests
from eelbert_jax.workdir import CHECKPOINTS_NAME
from support import buckets, forks
from support.processes import finish, pretrain_words, wait_until, wait_until_held
from support.workdirs import assert_same_run

pytestmark = pytest.mark.slow

WORKDIR = store.folder(f"{buckets.URL}/run")
CHECKPOINTS = WORKDIR / CHECKPOINTS_NAME
KILLS = 20
REQUESTS = 400
"""Of two saves or so."""


@pytest.fixture(autouse=True)
def nobody_left():
    """Leave no process of a test that failed."""
    yield
    forks.kill_left()


@pytest.fixture(scope="module")
def uncut(rows_dir, tmp_path_factory) -> Path:
    """Return the folder of a run of 20 steps that nothing befell."""
    folder = tmp_path_factory.mktemp("uncut")
    done(forks.start(pretrain_words(rows_dir, folder), folder / "log"))
    return folder


def done(started: list[forks.Forked]) -> list[str]:
    """Wait for the end, demand success and return what each process said."""
    ended = finish(started)
    assert [status for status, _, _ in ended] == [0] * len(ended), ended
    return [told for _, told, _ in ended]


def has_told(text: str, process: forks.Forked) -> bool:
    return text in process.told()


def kill_at(count: int, bucket: buckets.Bucket, process: forks.Forked) -> None:
    """Kill -9 a process as the bucket gets so many more requests; the last is not served."""
    left = iter(range(count - 1))

    def fault(method, path):
        if next(left, None) is None:
            process.kill()
            return 0
        return None

    bucket.fault = fault


def test_killed_at_random_requests_a_run_goes_on_from_its_newest_step(rows_dir, bucket, tmp_path):
    """Faults 1 and 2: 20 kills of one run, which ends as if there had been none."""
    draw, inside = random.Random(0), 0
    total = ("--config.total_steps=300", "--config.eval_every_steps=300", "--config.keep_checkpoints=1")
    words = pretrain_words(rows_dir, WORKDIR, *total, "--config.checkpoint_every_steps=2")
    for attempt in range(KILLS):
        newest = max(digests.steps(CHECKPOINTS), default=None)
        [process] = forks.start(words, tmp_path / f"log.{attempt}", stale_seconds=1.2)
        wait_until(functools.partial(has_told, f"step {(newest or 0) + 2}/", process), [process])
        kill_at(draw.randint(1, REQUESTS), bucket, process)
        told, _ = process.communicate()
        bucket.serve()
        assert process.returncode == -signal.SIGKILL, told
        assert newest is None or f"Resuming from step {newest} of {WORKDIR}." in told
        assert "is damaged" not in told
        inside += len([name for name in store.listing(str(CHECKPOINTS)) if name.isdecimal()]) > 1
    print(f"{inside} of {KILLS} kills fell inside a save")
    assert inside >= KILLS // 2
    seldom = "--config.checkpoint_every_steps=300"
    done(forks.start([*words, seldom], tmp_path / "last", stale_seconds=1.2))
    done(forks.start(pretrain_words(rows_dir, tmp_path / "uncut", *total, seldom), tmp_path / "uncut.log"))
    assert_same_run(rows_dir, tmp_path / "uncut", WORKDIR)


def test_sigterm_saves_the_step_reached_and_the_same_command_continues_bitwise(
    rows_dir, bucket, uncut, tmp_path
):
    """Fault 3. Nothing is due to be saved when the signal comes, and nobody waits for the lease."""
    words = pretrain_words(rows_dir, WORKDIR, "--config.checkpoint_every_steps=20")
    gate = tmp_path / "gate"
    process = forks.start(words, tmp_path / "log", held_at=(6, gate))
    wait_until_held(gate, process)
    process[0].send_signal(signal.SIGTERM)
    gate.touch()
    [(status, told, _)] = finish(process)
    assert status == 75, told
    assert "saved step 7; the same command continues" in told
    [told] = done(forks.start(words, tmp_path / "again"))
    assert "Resuming from step 7" in told
    assert "for a sign of life" not in told
    assert_same_run(rows_dir, uncut, WORKDIR)


def snapshot() -> dict[str, bytes]:
    """Return all objects of the workdir but the lease."""
    with store.opened(str(WORKDIR)) as (system, name):
        return {path: system.cat_file(path) for path in system.find(name) if f"/{LEASE_NAME}/" not in path}


def test_a_stopped_run_is_followed_and_writes_nothing_once_it_wakes(rows_dir, bucket, uncut, tmp_path):
    """Faults 18 and 19, as real processes on one workdir."""
    words, gate = pretrain_words(rows_dir, WORKDIR), tmp_path / "gate"
    [first] = forks.start(words, tmp_path / "first", stale_seconds=3.0, held_at=(10, gate))
    wait_until_held(gate, [first])
    wait_until(lambda: 8 in digests.steps(CHECKPOINTS), [first])
    [(status, told, _)] = finish(forks.start(words, tmp_path / "second", stale_seconds=3.0))
    assert status == 2, told
    assert f"Another process works in '{WORKDIR}'" in told
    first.send_signal(signal.SIGSTOP)
    [told] = done(forks.start(words, tmp_path / "third", stale_seconds=3.0))
    assert "Waiting up to 3 s for a sign of life" in told
    assert "Resuming from step 8" in told
    assert_same_run(rows_dir, uncut, WORKDIR)
    before = snapshot()
    gate.touch()
    first.send_signal(signal.SIGCONT)
    told, _ = first.communicate()
    assert first.returncode == 2, told
    assert f"error: The lease of {WORKDIR} was taken over by " in told
    assert snapshot() == before


def test_a_stuck_process_of_two_is_lost_to_the_other(rows_dir, bucket, tmp_path):
    """Fault 6, of the process that has the lease and writes: the other ends by the heartbeat."""
    words, gate = [*pretrain_words(rows_dir, WORKDIR), "--heartbeat_seconds=10"], tmp_path / "gate"
    both = forks.start(words, tmp_path / "log", processes=2, stale_seconds=3.0, held_at=(10, gate))
    wait_until_held(gate, both)
    wait_until(lambda: 8 in digests.steps(CHECKPOINTS), both)
    both[0].send_signal(signal.SIGSTOP)
    gate.touch()
    told, _ = both[1].communicate()
    assert both[1].returncode not in (0, 2, 75), told
    assert "heartbeat" in told.lower()
    assert both[0].returncode is None
    both[0].kill()  # before the emulator is asked: it serves nobody while a request is sent by half
    assert digests.steps(CHECKPOINTS)[0] == 8


@pytest.mark.parametrize(("first_unanswered", "statuses"), [("", (0, 1)), ("run/checkpoints/12", (1,))])
def test_a_store_that_is_gone_for_a_minute_costs_time_alone(
    rows_dir, bucket, uncut, tmp_path, first_unanswered, statuses
):
    """Fault 20. The log is patient; the requests of a save give up earlier, and a new start resumes.

    Between saves a run goes on, unless Orbax is still removing an old step when the store goes.
    """
    words, gate, gone = pretrain_words(rows_dir, WORKDIR), tmp_path / "gate", threading.Event()
    process = forks.start(words, tmp_path / "log", stale_seconds=6.0, held_at=(11, gate))
    wait_until_held(gate, process)
    wait_until(lambda: set(store.listing(str(CHECKPOINTS))) == {"4", "8"}, process)

    def fault(method, path):
        if first_unanswered in unquote(path):
            gone.set()
        return 0 if gone.is_set() else None

    bucket.fault = fault
    gate.touch()
    wait_until(gone.is_set, process)
    time.sleep(60.0)
    bucket.serve()
    [(ended, told, _)] = finish(process)
    assert ended in statuses, told
    if ended:
        assert told.splitlines()[-1].startswith(f"error: The store of {WORKDIR} failed: ")
    [told] = done(forks.start(words, tmp_path / "again", stale_seconds=6.0))
    assert ("Resuming from step 8" if ended else "is finished: nothing to do") in told
    assert_same_run(rows_dir, uncut, WORKDIR)


def test_two_processes_of_a_job_are_killed_and_preempted_as_in_a_folder(rows_dir, bucket, tmp_path):
    """Faults 4 and 5: a peer is killed, then one of the two is asked to end; bit for bit an uncut run."""

    def begin(place, name, **options):
        words = [*pretrain_words(rows_dir, place), "--heartbeat_seconds=10"]
        return forks.start(words, tmp_path / name, processes=2, stale_seconds=3.0, **options)

    done(begin(tmp_path / "uncut", "uncut.log"))
    both = begin(WORKDIR, "killed", held_at=(10, tmp_path / "never"))
    wait_until_held(tmp_path / "never", both)
    wait_until(lambda: 8 in digests.steps(CHECKPOINTS), both)
    both[1].kill()
    ended = finish(both)
    assert ended[0][0] not in (0, None), ended
    assert ended[1][0] == -signal.SIGKILL
    gate = tmp_path / "gate"
    both = begin(WORKDIR, "preempted", held_at=(13, gate))
    wait_until_held(gate, both)
    both[1].send_signal(signal.SIGTERM)
    wait_until(lambda: has_told("SIGTERM caught", both[1]), both)
    gate.write_text("1.0")  # the run must not end while the two agree on a step
    ended = finish(both)
    assert [status for status, _, _ in ended] == [75, 75], ended
    assert "Resuming from step 8" in ended[0][1]
    saved = {re.search(r"saved step (\d+)", told).group(1) for _, told, _ in ended}
    assert saved == {str(max(digests.steps(CHECKPOINTS)))}
    first, second = done(begin(WORKDIR, "last"))
    assert f"Resuming from step {saved.pop()}" in first
    assert "Resuming" not in second, "only the first process speaks"
    assert_same_run(rows_dir, tmp_path / "uncut", WORKDIR)
