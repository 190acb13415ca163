"""Run commands as processes of their own, each with its log: here, N at a time, or as a Slurm array."""

import fcntl
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from eelbert_jax.workdir import LOG_NAME

POLL_SECS = 0.1
GRACE_SECS = 20.0
"""Between asking a process to end and killing it; a checkpoint being written takes a few seconds."""


class Task(Protocol):
    """Say what to run and where its log goes."""

    @property
    def command(self) -> Sequence[str]:
        """The program and its words."""

    @property
    def logs(self) -> Path:
        """Folder of the log; made where missing."""


class Ended(NamedTuple):
    """Hold the exit status: negative for a signal, None where another process works in the folder."""

    status: int | None
    seconds: float

    def __str__(self) -> str:
        if self.status is None:
            return "another process works in its folder"
        return f"killed by signal {-self.status}" if self.status < 0 else f"exit status {self.status}"


def run_all(tasks: Iterable[Task], processes: int, ended: Callable[[Any, Ended], None]) -> None:
    """Run all tasks, `processes` at a time; however this function ends, no process of it is left.

    Each gets a session of its own, so that Ctrl-C reaches the sweep alone and the sweep decides.
    """
    waiting = iter(tasks)
    running: list[tuple[Any, subprocess.Popen[bytes], float]] = []
    try:
        while True:
            while len(running) < processes and (task := next(waiting, None)) is not None:
                process = _start(task)
                if process is None:
                    ended(task, Ended(None, 0.0))
                else:
                    running.append((task, process, time.monotonic()))
            if not running:
                return
            time.sleep(POLL_SECS)
            for entry in [entry for entry in running if entry[1].poll() is not None]:
                running.remove(entry)
                task, process, started = entry
                ended(task, Ended(process.returncode, time.monotonic() - started))
    finally:
        _stop([process for _, process, _ in running])


def slurm_script(tasks: Sequence[Task], processes: int) -> str:
    """Return a Slurm array script of the tasks, `processes` of them at a time."""
    lines = [
        "#!/bin/bash",
        "# Add what your cluster wants on the command line: sbatch --gres=gpu:1 --time=4:00:00 FILE",
        "# Afterwards the same `eelbert sweep` without --slurm prints the table.",
        "#SBATCH --job-name=eelbert",
        f"#SBATCH --array=0-{len(tasks) - 1}%{processes}",
        "set -eu",
        f"cd {shlex.quote(os.getcwd())}",
        'case "$SLURM_ARRAY_TASK_ID" in',
    ]
    for number, task in enumerate(tasks):
        log = shlex.quote(str(task.logs / LOG_NAME))
        lines += [
            f"{number})",
            f"  mkdir -p {shlex.quote(str(task.logs))}",
            f"  exec {shlex.join(task.command)} >> {log} 2>&1 ;;",
        ]
    return "\n".join([*lines, "esac"])


def last_line(folder: Path) -> str:
    """Return the last line of a folder's log that says something: of a failed process, its error."""
    path = folder / LOG_NAME
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _start(task: Task) -> subprocess.Popen[bytes] | None:
    """Start the task, or return None where another process holds its log.

    The child inherits the lock, which so also stands where a killed sweep has left its child behind.
    """
    task.logs.mkdir(parents=True, exist_ok=True)
    with (task.logs / LOG_NAME).open("ab") as log:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return subprocess.Popen(
            task.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECS
    for process in processes:
        try:
            process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, number)
