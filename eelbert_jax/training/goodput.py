"""Where a run's time goes: seconds by phase, over all starts of the run."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PHASES = ("init", "compile", "step", "data", "checkpoint", "evaluation", "lost")
"""`init`: from the job's call to the first step; `compile`: first calls; `step`: training, the wait for the
device included; `data`: waiting for rows; `lost`: work of an earlier start that was done again."""

PREFIX = "seconds_"


class Goodput:
    """Attribute every second of a run to one phase, from now on, in "init". The terms are ML Goodput's."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase = PHASES[0]
        self._since = time.monotonic()

    def resume(self, records: Sequence[Mapping[str, Any]], saved_step: int | None) -> None:
        """Add what earlier starts of the run took.

        Args:
          records: of `metrics.jsonl`, by those starts.
          saved_step: step of the checkpoint that this start resumes; what was recorded after it is lost.
            None: all of it is.
        """
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
