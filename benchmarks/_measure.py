"""What all benchmarks share: interleaved medians, workers that measure alone, and the line they print.

A ratio of two timings is fair only where both saw the same machine, so the cases take turns inside one run
and the median of the turns counts, or the least. Where peak memory matters too, each case lives in a process
of its own and the processes take turns. Leaves to each benchmark what one turn does; a turn must wait for its
own result (`jax.block_until_ready`), or it times the dispatch.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from eelbert_jax import memory

Answer = dict[str, float]
"""What a worker measured in a turn."""
UNITS = {
    "tokens/s": "tokens/s (larger is better)",
    "MB/s": "MB/s (larger is better)",
    "examples/s": "examples/s (larger is better)",
    "texts/s": "texts/s (larger is better)",
    "s": "s (smaller is better)",
    "ms": "ms (smaller is better)",
    "us": "us (smaller is better)",
    "MB": "MB on disk (smaller is better)",
    "MB in memory": "MB (smaller is better)",
    "MiB": "MiB at peak (smaller is better)",
}
"""Units by short name; the long name tells how to read the ratio, which is ours / baseline always."""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser with the options that every benchmark has."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--quick", action="store_true", help="fewer turns and cases: a check, not a figure")
    options.add_argument(
        "--json", action="store_true", help="print the JSON lines alone, without the table on standard error"
    )
    return options


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    turns: int,
    calls: int = 1,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    of: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Time all cases in turn and return the seconds of one call for each.

    The order rotates from turn to turn, so that no case always runs behind the same neighbour. Source: ours.

    Args:
      cases: what to time by name; a call must wait for its own result.
      turns: number of timed turns of every case.
      calls: calls a turn; more than one where a call is too short for the clock.
      warmup: untimed calls of every case at the start; compiles.
      clock: seconds; `time.process_time` counts the processor's.
      of: what counts of the turns' seconds.
    """
    for call in cases.values():
        for _ in range(warmup):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(turns):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            for _ in range(calls):
                cases[name]()
            seconds[name].append((clock() - start) / calls)
    return {name: of(values) for name, values in seconds.items()}


def report(benchmark: str, case: str, ours: float, baseline: float, unit: str, quiet: bool) -> None:
    """Print one case as a JSON line on standard output, and readably on standard error unless `quiet`.

    Args:
      benchmark: name of the benchmark's file, without suffix.
      case: what was compared with what, and at which sizes.
      ours: our figure, in `unit`.
      baseline: the figure compared with, in `unit`.
      unit: a key of `UNITS`.
      quiet: whether to print the JSON line alone.
    """
    line = {
        "benchmark": benchmark,
        "case": case,
        "ours": float(f"{ours:.6g}"),
        "baseline": float(f"{baseline:.6g}"),
        "unit": UNITS[unit],
        "ratio": float(f"{ours / baseline:.4g}"),
    }
    if not quiet:
        print(
            f"{case}: {ours:,.4g} against {baseline:,.4g} {UNITS[unit]}, {ours / baseline:.3f}x",
            file=sys.stderr,
        )
    print(json.dumps(line), flush=True)


def describe_machine() -> str:
    """Return the machine in one line: processor, cores that this process may use, system, Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {num_cores()} cores, {platform.system()}, Python {platform.python_version()}"


def num_cores() -> int:
    """Return how many cores this process may use, which a container may limit below what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_bytes() -> int:
    """Return the largest resident memory this process ever had.

    Read from `/proc` where there is one: `ru_maxrss` survives `exec` on Linux, so that a worker would report
    the size of the process that started it. Source: ours.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Worker:
    """A case in a process of its own, which takes a turn when asked.

    The other side is `serve`. Use it in a `with` statement: leaving it ends the process. Source: ours.
    """

    def __init__(self, script: str, case: str, options: list[str]) -> None:
        """Start `script --worker CASE OPTIONS` and wait until its case is ready (imported, compiled)."""
        self.case = case
        command = [sys.executable, script, "--worker", case, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def turn(self) -> dict[str, float]:
        """Let the worker take one turn and return what it measured."""
        assert self.process.stdin is not None
        print("turn", file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"The worker {self.case!r} ended with status {self.process.wait()}; see its output."
            )
        return json.loads(line)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()


def take_turns(script: str, cases: Sequence[str], options: list[str], turns: int) -> dict[str, list[Answer]]:
    """Let a worker a case take turns, in an order that rotates, and return what each turn gave, by case."""
    answers: dict[str, list[Answer]] = {case: [] for case in cases}
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker(script, case, options)) for case in cases]
        for turn in range(turns):
            shift = turn % len(workers)
            for worker in workers[shift:] + workers[:shift]:
                answers[worker.case].append(worker.turn())
    return answers


def data_folder(content: str) -> Path:
    """Return the folder that EELBERT_DATA names; end the program where it names none."""
    if "EELBERT_DATA" not in os.environ:
        raise SystemExit(f"error: set EELBERT_DATA to a folder with {content}")
    return Path(os.environ["EELBERT_DATA"])


def serve(prepare: Callable[[], Callable[[], dict[str, float]]]) -> None:
    """Answer the parent's `Worker.turn` calls until it goes away; the worker's main loop.

    Standard output is the channel, so whatever the case itself prints goes to standard error. Every case,
    PyTorch's too, keeps freed memory as `eelbert` does. Adds `peak_bytes` to every answer.

    Args:
      prepare: builds the case and returns the function that takes one turn and returns what it measured.
    """
    memory.keep_freed_memory()
    channel, sys.stdout = sys.stdout, sys.stderr
    turn = prepare()
    print("{}", file=channel, flush=True)
    for _ in sys.stdin:
        print(json.dumps({**turn(), "peak_bytes": peak_bytes()}), file=channel, flush=True)
