"""Processes of `eelbert` that start at once, forked from one that has imported it: to kill many of them."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from eelbert_jax import lease
from eelbert_jax.__main__ import main
from support.held import hold
from support.processes import PATIENCE_SECONDS, member_flags

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "eelbert_jax.jobs.pretrain"])  # no gcsfs: it reads variables


class Forked:
    """A process of `eelbert`, with what the tests use of `subprocess.Popen`; it prints into `log`."""

    def __init__(
        self, words: Sequence[str], log: Path, variables: Mapping[str, str], prepare: Callable[[], None]
    ) -> None:
        assert words[1:3] == ["-m", "eelbert_jax"]
        self.log = log
        cache = jax.config.jax_compilation_cache_dir
        arguments = (words[3:], log, dict(variables), cache, prepare)
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()
        self.pid = self._process.pid
        _started.append(self)

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def told(self) -> str:
        """Return what the process has printed so far."""
        return self.log.read_text() if self.log.exists() else ""

    def communicate(self, timeout: float | None = PATIENCE_SECONDS) -> tuple[str, str]:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.log.name, timeout, self.told())
        return self.told(), ""


_started: list[Forked] = []


def kill_left() -> None:
    """Kill those that still run, or stand stopped: the interpreter would wait for them at its end."""
    while _started:
        _started.pop().kill()


def start(
    words: Sequence[str],
    log: Path,
    *,
    processes: int = 1,
    stale_seconds: float = lease.STALE_SECONDS,
    held_at: tuple[int, Path] | None = None,
) -> list[Forked]:
    """Start a command as processes that find each other; each writes `log` with its number before the suffix.

    Args:
      stale_seconds: of the lease; there are six beats in it.
      held_at: a step and a gate, see held.py.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    prepare = functools.partial(_prepare, stale_seconds, held_at)
    return [
        Forked([*words, *flags], log.with_name(f"{log.name}.{number}"), variables, prepare)
        for number, flags in enumerate(member_flags(processes))
    ]


def _prepare(stale_seconds: float, held_at: tuple[int, Path] | None) -> None:
    lease.STALE_SECONDS, lease.BEAT_SECONDS = stale_seconds, stale_seconds / 6
    if held_at is not None:
        hold(str(held_at[0]), held_at[1])


def _run(
    words: Sequence[str], log: Path, variables: Mapping[str, str], cache: str, prepare: Callable[[], None]
) -> None:
    """Be a process of the command."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(variables)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    prepare()
    sys.exit(main(list(words)))
