"""Run `eelbert pretrain` up to a point and stand still there: what a test does to it never comes too late.

    python tests/support/held.py STEP FILE pretrain ...

The run waits before the batch that follows STEP, or before its loop where STEP is "start", until FILE exists.
While a process waits there is FILE.waiting.PID. A number in FILE: each batch takes so many seconds more.
"""

import os
import sys
import time
from pathlib import Path

from eelbert_jax.__main__ import main
from eelbert_jax.training import loop


def wait_for(gate: Path) -> None:
    """Say that this process waits, and wait."""
    if not gate.exists():
        gate.with_name(f"{gate.name}.waiting.{os.getpid()}").touch()
    while not gate.exists():
        time.sleep(0.01)
    time.sleep(float(gate.read_text() or 0))


def hold(until: str, gate: Path) -> None:
    """Let `loop.run` wait for the file `gate` at step `until`, or before it begins."""
    run = loop.run

    def held(state, *, next_batch, **arguments):
        def rows(step: int):
            if until != "start" and step >= int(until):
                wait_for(gate)
            return next_batch(step)

        if until == "start":
            wait_for(gate)
        return run(state, next_batch=rows, **arguments)

    loop.run = held


if __name__ == "__main__":
    hold(sys.argv[1], Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
