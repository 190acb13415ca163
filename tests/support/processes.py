"""Start `eelbert pretrain` as one process or several, and wait for what it does, never for a time."""

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 240
"""Before a test gives up on a process that neither does what is awaited nor ends."""


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def pretrain_words(rows_dir: Path, workdir: Path, *changes: str) -> list[str]:
    """Return the command line of a run of 20 small steps; later words override earlier ones."""
    return [
        sys.executable, "-m", "eelbert_jax", "pretrain", "--config=configs/pretrain.py:micro,setting=small",
        f"--config.data.rows={rows_dir}", "--config.total_steps=20", "--config.opt.warmup_steps=2",
        "--config.log_every_steps=1", "--config.eval_every_steps=10", "--config.checkpoint_every_steps=4",
        "--config.batch_size=8", "--config.rows_per_device=1", "--config.data.eval_batch_size=16",
        "--config.tensorboard=false", f"--workdir={workdir}", *changes,
    ]  # fmt: skip


def held_at(step: int | str, words: Sequence[str], gate: Path) -> list[str]:
    """Return the command that stands still at a point until the file `gate` exists; see held.py."""
    assert words[1:3] == ["-m", "eelbert_jax"]
    return [words[0], str(ROOT / "tests" / "support" / "held.py"), str(step), str(gate), *words[3:]]


def wait_until_held(gate: Path, started: Sequence[subprocess.Popen]) -> None:
    """Wait until every one of the processes stands still at its gate."""
    wait_until(lambda: len(list(gate.parent.glob(f"{gate.name}.waiting.*"))) == len(started), started)


def start(words: Sequence[str], *, processes: int = 1, devices: int = 1) -> list[subprocess.Popen]:
    """Start the command as `processes` processes that find each other, with `devices` virtual CPUs each."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return [
        subprocess.Popen(
            [*words, *flags], env=env, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for flags in member_flags(processes)
    ]


def member_flags(processes: int) -> list[list[str]]:
    """Return for each process of a job the flags by which they find each other on the loopback."""
    if processes == 1:
        return [[]]
    job = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={processes}"]
    return [[*job, f"--process_id={index}"] for index in range(processes)]


def finish(started: Sequence[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Wait for all and return (exit status, standard output, standard error) of each."""
    try:
        ended = [process.communicate(timeout=PATIENCE_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, out, err) for process, (out, err) in zip(started, ended, strict=True)]


def run(words: Sequence[str], *, processes: int = 1, devices: int = 1) -> list[str]:
    """Run to the end, demand success of every process and return their outputs."""
    ended = finish(start(words, processes=processes, devices=devices))
    for status, out, err in ended:
        assert status == 0, f"{out}\n{err}"
    return [out for _, out, _ in ended]


def wait_until(happened: Callable[[], bool], started: Sequence[subprocess.Popen]) -> None:
    """Wait until something happened, while all the processes live."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        dead = [process for process in started if process.poll() is not None]
        if dead or time.monotonic() > deadline:
            for process in started:
                process.kill()
            raise AssertionError("\n".join("\n".join(process.communicate()) for process in started))
        time.sleep(0.02)


def wait_for_line(text: str, process: subprocess.Popen, stream: TextIO) -> None:
    """Read what a process prints until a line with `text`."""
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(itertools.islice(lines_with(text, stream), 1)))
    reader.start()
    reader.join(PATIENCE_SECONDS)
    if not found:
        process.kill()
        reader.join()
        raise AssertionError(f"no line with {text!r}")


def lines_with(text: str, stream: TextIO) -> Iterator[str]:
    """Yield the lines with `text`."""
    return (line for line in stream if text in line)
