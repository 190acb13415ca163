"""What watches over a run from outside of its arithmetic: preemption, stuck steps, the use of time."""

import contextlib
import faulthandler
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from eelbert_jax.errors import UserError

PHASES = ("init", "compile", "step", "data", "checkpoint", "evaluation", "lost")
"""`init`: from the job's call to the first step; `compile`: first calls; `step`: training, the wait for the
device included; `data`: waiting for rows; `lost`: work of an earlier start that was done again."""

PREFIX = "seconds_"

STDERR = 2
"""The file descriptor: the timer writes past Python's streams."""


class Preemption:
    """Tell whether the machine asked this run to end (SIGTERM), at a step on which all processes agree.

    With one process the first SIGTERM is remembered and the second kills. With several, `jax.distributed`
    names a question that none has asked yet: numbered from the start of the process, since a resumed run's
    steps have passed number 1, of a signal before the first question, long ago.
    """

    def __init__(self) -> None:
        self._asked = False
        self._several = jax.process_count() > 1
        self._questions = 0
        self._before = None
        if not self._several and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def reached(self) -> bool:
        """Whether to save now and end; every process has to ask at the same steps."""
        if not self._several:
            return self._asked
        question, self._questions = self._questions, self._questions + 1
        return multihost_utils.reached_preemption_sync_point(question)

    def close(self) -> None:
        """Put the former handler back."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


class Watchdog:
    """End the process, with the stacks of all threads on stderr, after `seconds` without a `beat`; 0: never.

    The standard library's timer runs outside of the interpreter: neither a held lock nor XLA holds it up.
    """

    def __init__(self, seconds: float) -> None:
        if seconds < 0:
            raise UserError(f"watchdog_seconds must not be negative, got {seconds}.")
        self._seconds = seconds

    def beat(self) -> None:
        """Report progress."""
        if self._seconds:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=STDERR)

    def close(self) -> None:
        """Stop watching."""
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()


class Goodput:
    """Attribute every second of a run to one phase, from now on, in "init". The terms are ML Goodput's."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase = PHASES[0]
        self._since = time.monotonic()

    def resume(self, records: Sequence[Mapping[str, Any]], saved_step: int | None) -> None:
        """Add what earlier starts recorded in `metrics.jsonl`; after `saved_step` (None: all) it is lost."""
        timed = [record for record in records if PREFIX + PHASES[0] in record]
        if not timed:
            return
        kept = [record for record in timed if saved_step is not None and record["step"] <= saved_step]
        before = {phase: kept[-1][PREFIX + phase] if kept else 0.0 for phase in PHASES}
        before["lost"] += sum(timed[-1][PREFIX + phase] for phase in PHASES) - sum(before.values())
        for phase, seconds in before.items():
            self._seconds[phase] += seconds

    def enter(self, phase: str) -> None:
        """Begin `phase`, which ends the present one."""
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Be in `phase` for the block, then again in the phase before."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every phase so far as `seconds_PHASE`."""
        self.enter(self._phase)
        return {PREFIX + phase: round(self._seconds[phase], 3) for phase in PHASES}

    def total(self) -> float:
        """Return the seconds of all phases, over all starts of the run."""
        return round(sum(self.seconds().values()), 1)

    def summary(self) -> str:
        """Return one line: the share of the time that went into steps, and into what the rest went."""
        self.enter(self._phase)
        total = sum(self._seconds.values()) or 1.0
        shares = ((phase, seconds / total) for phase, seconds in self._seconds.items() if seconds)
        parts = ", ".join(f"{phase} {share:.1%}" for phase, share in shares)
        return f"goodput {self._seconds['step'] / total:.1%} of {total:.0f} s ({parts})"


class Supervision:
    """The three watchers of a run."""

    def __init__(self, goodput: Goodput, watchdog_seconds: float) -> None:
        self.goodput = goodput
        self.watchdog = Watchdog(watchdog_seconds)
        self.preemption = Preemption()

    def close(self) -> None:
        """Stop watching and put signal handlers back."""
        self.watchdog.close()
        self.preemption.close()


@contextlib.contextmanager
def supervise(goodput: Goodput, watchdog_seconds: float) -> Iterator[Supervision]:
    """Watch over the block; see `Watchdog` for `watchdog_seconds`."""
    supervision = Supervision(goodput, watchdog_seconds)
    try:
        yield supervision
    finally:
        supervision.close()
