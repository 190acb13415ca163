"""Run `eelbert pretrain` up to a step and stand still there: what a test does to it never comes too late.

    python tests/held.py STEP FILE pretrain ...

The run waits before the batch that follows STEP until FILE exists.
"""

import sys
import time
from pathlib import Path

from eelbert_jax.__main__ import main
from eelbert_jax.training import loop


def hold(until: int, gate: Path) -> None:
    """Let `loop.run` wait for the file `gate` at step `until`."""
    run = loop.run

    def held(state, *, next_rows, **arguments):
        def rows(step: int):
            while step >= until and not gate.exists():
                time.sleep(0.01)
            return next_rows(step)

        return run(state, next_rows=rows, **arguments)

    loop.run = held


if __name__ == "__main__":
    hold(int(sys.argv[1]), Path(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
