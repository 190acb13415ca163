"""`eelbert sweep`: the grid of a config file in, one run a cell and a table of results out.

    eelbert sweep --config=configs/sweeps/glue.py:tiny,task=rte --config.pretrained=runs/tiny --workdir=...
    eelbert sweep --config=configs/sweeps/max_gram.py:tiny --config.data.rows=runs/rows --workdir=... --print

Every cell is a process `eelbert JOB` of its own with the folder WORKDIR/NAME and a log in it, so that a crash
is one cell. Finished cells are not run again: the same command continues after a kill. Several processes
share one accelerator only with XLA_PYTHON_CLIENT_MEM_FRACTION set to their share of its memory.
"""

import os
import shlex
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eelbert_jax import cli
from eelbert_jax.errors import UserError
from eelbert_jax.reporting import text
from eelbert_jax.reporting.scores import summarize
from eelbert_jax.sweeping import processes
from eelbert_jax.sweeping.grid import SWEPT_JOBS, Cell, Result, plan, read_result, short_names
from eelbert_jax.sweeping.samplers import GridSampler, OptunaSampler, Sampler
from eelbert_jax.training.writer import duration
from eelbert_jax.workdir import SWEEP_NAME, write_whole

SEED_KEY = "seed"
CONTINUE = "The same command continues: finished cells stay, the others take up their checkpoint."


class CellsFailed(UserError):
    """Some cells of a sweep have no result; the others have, and stand in the table."""


class Outcome(NamedTuple):
    """What became of a cell in this sweep.

    Attributes:
      cell: the cell.
      status: "finished", or why there is no result.
      result: None where there is none.
    """

    cell: Cell
    status: str
    result: Result | None


def sweep(
    cells: Sequence[Cell], workdir: str | Path, sampler: Sampler, num_processes: int = 1
) -> list[Outcome]:
    """Run what the sampler asks for, say how each cell ended, and write `results.md` and `results.csv`.

    Args:
      cells: of the grid.
      workdir: receives the tables.
      sampler: chooses among the cells.
      num_processes: cells that run at a time.

    Returns:
      The outcomes of the chosen cells in the order of the grid.
    """
    before = {cell.name: read_result(cell) for cell in cells}  # all now: a strange folder is said first
    outcomes: dict[str, Outcome] = {}

    def record(outcome: Outcome, note: str) -> None:
        outcomes[outcome.cell.name] = outcome
        sampler.tell(outcome.cell, outcome.result)
        figure = f"{outcome.result.main} {outcome.result.value:.4f}  " if outcome.result is not None else ""
        print(f"{outcome.cell.name}: {figure}{note}", flush=True)

    def next_cell() -> Cell | None:
        while (cell := sampler.ask()) is not None:
            if cell.name in outcomes:
                sampler.tell(cell, outcomes[cell.name].result)
            elif before[cell.name] is not None:
                record(Outcome(cell, "finished", before[cell.name]), "finished before")
            else:
                print(f"{cell.name}: started, log in {cell.workdir / processes.LOG_NAME}", flush=True)
                return cell
        return None

    def ended(cell: Cell, how: processes.Ended) -> None:
        result = read_result(cell) if how.status == 0 else None
        if result is not None:
            record(Outcome(cell, "finished", result), duration(how.seconds))
        else:
            why = "ended without its result" if how.status == 0 else str(how)
            record(Outcome(cell, f"failed: {why}", None), f"{why}: {processes.last_line(cell.workdir)}")

    try:
        processes.run_all(next_cell, num_processes, ended)
    except KeyboardInterrupt:
        print(f"\nStopped with {_num_finished(outcomes)} cells finished. {CONTINUE}", flush=True)
        raise
    chosen = [outcomes[cell.name] for cell in cells if cell.name in outcomes]
    markdown = "\n".join(text.markdown(table) for table in tables(chosen))
    write_whole(Path(workdir) / "results.md", markdown)
    write_whole(Path(workdir) / "results.csv", text.csv_text(cell_records(chosen)))
    print("\n" + markdown, end="", flush=True)
    return chosen


def cell_records(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a record a cell: what the grid set, its figures, its status; None where it has none such."""
    names = short_names(outcomes[0].cell.config)
    keys = dict.fromkeys(key for outcome in outcomes for key in outcome.cell.overrides)
    figures = dict.fromkeys(name for o in outcomes if o.result for name in o.result.figures)
    return [
        {names[key]: outcome.cell.overrides.get(key) for key in keys}
        | {name: outcome.result.figures.get(name) if outcome.result else None for name in figures}
        | {"status": outcome.status}
        for outcome in outcomes
    ]


def seed_records(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a record a setting with its main figure over the seeds; none where the grid varies no seed."""
    groups: dict[tuple[tuple[str, Any], ...], list[Result]] = {}
    for outcome in outcomes:
        overrides = outcome.cell.overrides
        if SEED_KEY in overrides and outcome.result is not None:
            setting = tuple((key, value) for key, value in overrides.items() if key != SEED_KEY)
            groups.setdefault(setting, []).append(outcome.result)
    names = short_names(outcomes[0].cell.config)
    return [
        {names[key]: value for key, value in setting}
        | {"figure": results[0].main}
        | summarize([result.value for result in results])._asdict()
        for setting, results in groups.items()
    ]


def tables(outcomes: Sequence[Outcome]) -> list[text.Table]:
    """Return the table of all cells and, where the grid varies seeds, that over seeds."""
    titled = {"Cells": cell_records(outcomes), "Over seeds": seed_records(outcomes)}
    found = []
    for title, records in titled.items():
        columns = tuple(dict.fromkeys(name for record in records for name in record))
        rows = tuple(tuple(_cell_text(record.get(name)) for name in columns) for record in records)
        found.append(text.Table(title, columns, rows))
    return [table for table in found if table.rows]


def listing(cells: Sequence[Cell]) -> str:
    """Return each cell with whether it is finished and its command, as text."""
    lines = []
    for cell in cells:
        state = "to run" if read_result(cell) is None else "finished"
        lines.append(f"# {cell.name}: {state}\n{shlex.join(cell.command)}")
    return "\n".join(lines)


def slurm_script(cells: Sequence[Cell], num_processes: int) -> str:
    """Return a Slurm array script of the unfinished cells, `num_processes` of them at a time."""
    waiting = [cell for cell in cells if read_result(cell) is None]
    if not waiting:
        raise UserError("Every cell is finished; run the sweep without --slurm to see the table.")
    lines = [
        "#!/bin/bash",
        "# Add what your cluster wants on the command line: sbatch --gres=gpu:1 --time=4:00:00 FILE",
        "# Afterwards the same `eelbert sweep` without --slurm prints the table.",
        "#SBATCH --job-name=eelbert",
        f"#SBATCH --array=0-{len(waiting) - 1}%{num_processes}",
        "set -eu",
        f"cd {shlex.quote(os.getcwd())}",
        'case "$SLURM_ARRAY_TASK_ID" in',
    ]
    for number, cell in enumerate(waiting):
        log = shlex.quote(str(cell.workdir / processes.LOG_NAME))
        lines += [
            f"{number})",
            f"  mkdir -p {shlex.quote(str(cell.workdir))}",
            f"  exec {shlex.join(cell.command)} >> {log} 2>&1 ;;",
        ]
    return "\n".join([*lines, "esac"])


def main(argv: list[str]) -> None:
    """Run the job from the command line.

    Raises:
      CellsFailed: after all cells are done, where some have no result.
    """
    invocation = cli.parse("sweep", argv)
    flags = invocation.flags
    if flags["processes"] < 1 or flags["trials"] < 1:
        raise UserError("--processes and --trials count from 1.")
    cells = plan(flags["job"], argv, invocation.workdir)
    samplers: dict[str, Callable[[], Sampler]] = {
        "grid": lambda: GridSampler(cells),
        "optuna": lambda: OptunaSampler(
            cells, flags["trials"], larger_is_better=SWEPT_JOBS[cells[0].job].larger_is_better
        ),
    }
    if flags["sampler"] not in samplers:
        raise UserError(f"Unknown --sampler={flags['sampler']!r}; known: {', '.join(samplers)}.")
    if flags["print"] or flags["slurm"]:
        if flags["sampler"] != "grid":
            raise UserError("--print and --slurm list a grid; optuna chooses as results come in.")
        print(slurm_script(cells, flags["processes"]) if flags["slurm"] else listing(cells))
        return
    sampler = samplers[flags["sampler"]]()
    cli.write_config(invocation.config, invocation.workdir, SWEEP_NAME)
    # A scheduler's SIGTERM stops the cells as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = sweep(cells, invocation.workdir, sampler, flags["processes"])
    failed = [outcome for outcome in outcomes if outcome.result is None]
    if failed:
        names = "".join(f"\n  {o.cell.workdir / processes.LOG_NAME}: {o.status}" for o in failed)
        raise CellsFailed(f"{len(failed)} of {len(outcomes)} cells have no result:{names}\n{CONTINUE}")


def _cell_text(value: Any) -> str:
    if value is None:
        return text.NONE
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _num_finished(outcomes: dict[str, Outcome]) -> int:
    return sum(outcome.result is not None for outcome in outcomes.values())
