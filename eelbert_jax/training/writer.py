"""Where a run's figures go: `metrics.jsonl`, TensorBoard and the console."""

import contextlib
import json
import math
import struct
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tensorboardX import record_writer
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.parts import Parts, find_parts
from eelbert_jax.workdir import METRICS_NAME, TENSORBOARD_NAME, write_whole


def duration(seconds: float) -> str:
    """Return seconds as 1h02m, 3m05s or 12s."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


RESUMED = "resumed_from"
"""In a store, where no line of `metrics.jsonl` can be taken back: the records after this step are void."""


def has_metrics(workdir: Path) -> bool:
    """Return whether a folder holds a `metrics.jsonl`, whole or in parts."""
    path = workdir / METRICS_NAME
    return path.is_file() or bool(find_parts(path))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a `metrics.jsonl`, if any; a last line torn by a kill is passed over.

    Where there are parts of one, as in a store or copied from there, those are read.
    """
    files = [path] if path.is_file() else find_parts(path)
    records: list[dict[str, Any]] = []
    for line in "".join(file.read_text() for file in files).splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if RESUMED in record:
            records = [kept for kept in records if kept["step"] <= record[RESUMED]]
        else:
            records.append(record)
    return records


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn a refusal to write `path`, a full disk first of all, into a `UserError`."""
    try:
        yield
    except store.Unanswered:
        raise
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free space or get leave to write there; the "
            "same command resumes from the last checkpoint."
        ) from error


class Writer:
    """Write scalars of a step to `metrics.jsonl` and TensorBoard, and progress to the console.

    A resumed run continues the file: records after `start_step` (None: a new run) are dropped, so that it
    ends as an uninterrupted run's, and TensorBoard shows what the file has. Only one process of a run writes:
    the others give no workdir.
    """

    def __init__(
        self, workdir: Path | None, total_steps: int, start_step: int | None, *, tensorboard: bool
    ) -> None:
        first = start_step or 0
        self._total_steps = total_steps
        self._start = (time.monotonic(), first)
        self._file: IO[bytes] | Parts | None = None
        self._events: _Events | None = None
        self._progress_shown = False
        if workdir is None:
            return
        self._path = path = workdir / METRICS_NAME
        found = [] if start_step is None else read_metrics(path)
        kept = [record for record in found if record["step"] <= first]
        with _explained(path):
            if store.is_url(path):
                self._file = Parts(str(path))
                self._write({RESUMED: -1 if start_step is None else first})
            else:
                if path.exists():
                    write_whole(path, "".join(json.dumps(record) + "\n" for record in kept))
                self._file = path.open("ab")
            if tensorboard:
                self._events = _Events(
                    workdir / TENSORBOARD_NAME, 0 if start_step is None else first + 1, kept
                )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record `values` of `step`: a kill right after loses nothing, in a store what `Parts` says."""
        if self._file is None:
            return
        with _explained(self._path):
            self._write({"step": step, **values})
            self._file.flush()
            if self._events is not None:
                self._events.write(step, values)

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write((json.dumps(record) + "\n").encode())

    def sync(self) -> None:
        """Return once a kill loses no record; to be called before what a start resumes from is saved."""
        if isinstance(self._file, Parts):
            with _explained(self._path):
                self._file.sync()

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
            with contextlib.suppress(OSError):  # its error was raised when it was to be written
                self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()


class _Events:
    """TensorBoard's event file of this start of a run; every call is on disk when it returns.

    Events from step `void_from` on are declared void, and what they lack of the `kept` records is written: a
    kill or a start without TensorBoard may have left them out.
    """

    def __init__(self, folder: Path, void_from: int, kept: Sequence[Mapping[str, Any]]) -> None:
        if store.is_url(folder):
            scheme = str(folder).partition(":")[0]
            record_writer.register_writer_factory(scheme, _EventParts)
        else:
            folder.mkdir(exist_ok=True)
        shown = shown_events(folder)
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=void_from, session_log=start))
        for record in kept:
            step, values = record["step"], {name: record[name] for name in record if name != "step"}
            missing = {name: value for name, value in values.items() if (name, step) not in shown}
            if missing:
                self._add(step, missing)
        self._writer.flush()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._add(step, values)
        self._writer.flush()

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars)))

    def close(self) -> None:
        self._writer.close()


class _EventParts:
    """How TensorBoard's writer opens a file in a store."""

    open = Parts


def shown_events(folder: Path) -> dict[tuple[str, int], float]:
    """Return by (name, step) the scalars that TensorBoard shows of a folder's event files."""
    shown: dict[tuple[str, int], float] = {}
    for path in sorted(folder.glob("events.*")):
        data, place = path.read_bytes(), 0
        while place + 8 <= len(data):  # an event: its length, a checksum, itself, a checksum
            end = place + 12 + struct.unpack_from("<Q", data, place)[0]
            if end > len(data):  # torn by a kill
                break
            event = Event.FromString(data[place + 12 : end])
            if event.session_log.status == SessionLog.START:
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            shown |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            place = end + 4
    return shown
