"""Preemption, watchdog and the account of time, each by itself; whole runs are broken in test_faults."""

import os
import signal
import subprocess
import sys
import time

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.training import supervision
from eelbert_jax.training.supervision import PHASES, Goodput, Preemption, Watchdog, supervise


@pytest.fixture
def clock(monkeypatch):
    """Give a monotonic clock that moves by hand."""

    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def test_every_second_is_of_one_phase(clock):
    goodput = Goodput()
    clock.now = 111.0
    goodput.enter("step")
    clock.now = 114.0
    with goodput.during("data"):
        clock.now = 115.0
        with goodput.during("checkpoint"):
            clock.now = 117.0
    clock.now = 120.0
    seconds = goodput.seconds()
    expected = {"init": 11.0, "step": 6.0, "data": 1.0, "checkpoint": 2.0}
    assert seconds == {f"seconds_{phase}": expected.get(phase, 0.0) for phase in PHASES}
    assert goodput.summary() == (
        "goodput 30.0% of 20 s (init 55.0%, step 30.0%, data 5.0%, checkpoint 10.0%)"
    )


@pytest.mark.parametrize(("saved_step", "kept", "lost"), [(20, 8.0, 5.0), (30, 13.0, 0.0), (None, 0.0, 13.0)])
def test_what_was_done_after_the_resumed_step_is_lost(clock, saved_step, kept, lost):
    def record(step: int, init: float, steps: float) -> dict:
        return {"step": step, **dict.fromkeys((f"seconds_{p}" for p in PHASES), 0.0)} | {
            "seconds_init": init,
            "seconds_step": steps,
        }

    records = [
        record(10, 3.0, 2.0),
        {"step": 20, "heldout_loss": 1.0},
        record(20, 3.0, 5.0),
        record(30, 3.0, 10.0),
    ]
    goodput = Goodput()
    goodput.resume(records, saved_step)
    seconds = goodput.seconds()
    assert seconds["seconds_lost"] == lost
    assert seconds["seconds_init"] + seconds["seconds_step"] == kept


def test_sigterm_is_remembered_once_and_the_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with supervise(Goodput(), 0) as watchers:
        assert not watchers.preemption.reached()
        os.kill(os.getpid(), signal.SIGTERM)
        assert watchers.preemption.reached()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "a second signal kills"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_process_without_the_signal_goes_on():
    preemption = Preemption()
    try:
        assert not preemption.reached()
    finally:
        preemption.close()


def test_several_processes_number_their_questions_from_the_start_whatever_the_step(monkeypatch):
    """A signal before the first question is seen at number 1, as the coordination service counts."""
    asked = []

    def answer(number):
        asked.append(number)
        return number == 1

    monkeypatch.setattr(supervision.jax, "process_count", lambda: 2)
    monkeypatch.setattr(supervision.multihost_utils, "reached_preemption_sync_point", answer)
    preemption = Preemption()
    assert [preemption.reached() for _ in range(3)] == [False, True, False]
    assert asked == [0, 1, 2]


def test_a_stuck_process_ends_with_its_stacks_and_a_busy_one_does_not():
    program = """
import sys, time
from eelbert_jax.training.supervision import Watchdog
watchdog = Watchdog(3.0)
def stuck_here():
    while True:
        time.sleep(10)
for _ in range(30):
    time.sleep(0.05)
    watchdog.beat()
print("lived", flush=True)
stuck_here()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "lived\n"
    assert "Timeout" in done.stderr
    assert "stuck_here" in done.stderr


def test_a_negative_limit_is_refused():
    with pytest.raises(UserError, match="watchdog_seconds must not be negative, got -1"):
        Watchdog(-1.0)
