"""Where a run's figures go: `metrics.jsonl`, TensorBoard and the console."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import tensorboardX

from eelbert_jax.errors import UserError
from eelbert_jax.workdir import METRICS_NAME, TENSORBOARD_NAME


def duration(seconds: float) -> str:
    """Return seconds as 1h02m, 3m05s or 12s."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


def read_metrics(path: Path) -> list[dict]:
    """Return the records of a `metrics.jsonl`, none where there is no file.

    A torn last line, left by a kill, is passed over.
    """
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn a refusal to write `path`, a full disk first of all, into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free space or get leave to write there; the "
            "same command resumes from the last checkpoint."
        ) from error


class Writer:
    """Write scalars of a step to `metrics.jsonl` and TensorBoard, and progress to the console.

    A resumed run continues the file: records after the step it resumes from are dropped, so that the file
    is the same as an uninterrupted run's. Only one process of a run writes. Source: ours.

    Args:
      workdir: the run's folder; None writes nothing (processes other than the first).
      total_steps: for progress and the estimate of the time left.
      start_step: completed updates of the checkpoint that the run resumes; None: it starts anew.
      tensorboard: also write TensorBoard events.
    """

    def __init__(
        self, workdir: Path | None, total_steps: int, start_step: int | None, *, tensorboard: bool
    ) -> None:
        first = start_step or 0
        self._total_steps = total_steps
        self._start = (time.monotonic(), first)
        self._file = self._events = None
        self._progress_shown = False
        if workdir is None:
            return
        self._path = path = workdir / METRICS_NAME
        with _explained(path):
            if path.exists():
                found = [] if start_step is None else read_metrics(path)
                kept = [record for record in found if record["step"] <= first]
                partial = path.with_suffix(".jsonl.partial")
                partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
                os.replace(partial, path)
            self._file = path.open("a")
        if tensorboard:
            self._events = tensorboardX.SummaryWriter(str(workdir / TENSORBOARD_NAME), purge_step=first + 1)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record `values` of `step`.

        Raises:
          UserError: the disk is full, or the file may not be written any longer.
        """
        if self._file is None:
            return
        with _explained(self._path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, step)

    def note(self, text: str) -> None:
        """Print a line of its own."""
        if self._file is None:
            return
        if self._progress_shown:
            sys.stdout.write("\r\033[K")
            self._progress_shown = False
        print(text, flush=True)

    def progress(self, step: int, text: str) -> None:
        """Show step, `text` and the time left: in place on a terminal, as a line elsewhere."""
        if self._file is None:
            return
        started, start_step = self._start
        done = step - start_step
        left = (self._total_steps - step) * (time.monotonic() - started) / done if done else math.inf
        share = step / self._total_steps
        line = f"step {step}/{self._total_steps} ({share:.0%})  {text}  ETA {duration(left)}"
        if sys.stdout.isatty():
            width = 20
            bar = "#" * round(share * width)
            sys.stdout.write(f"\r\033[K[{bar:<{width}}] {line}")
            sys.stdout.flush()
            self._progress_shown = True
        else:
            print(line, flush=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress_shown:
            print()
        if self._file is not None:
            with contextlib.suppress(OSError):  # what could not be written was said when it was to be
                self._file.close()
        if self._events is not None:
            self._events.close()
