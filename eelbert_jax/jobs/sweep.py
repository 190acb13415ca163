"""`eelbert sweep`: the grid of a config file in, one run a cell and a table of results out.

    eelbert sweep --config=configs/sweeps/glue.py:tiny,task=rte --config.pretrained=runs/tiny --workdir=...

A cell is a process of its own, so that a crash is one cell; finished cells are not run again. Several share
one accelerator only with XLA_PYTHON_CLIENT_MEM_FRACTION set to their share of its memory.
"""

import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from eelbert_jax import cli, store
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import fitting, pretrain
from eelbert_jax.reporting import text
from eelbert_jax.sweeping import processes
from eelbert_jax.sweeping.grid import Cell, plan
from eelbert_jax.sweeping.results import Figures, Outcome, cell_records, read_figures, tables
from eelbert_jax.training.writer import duration
from eelbert_jax.workdir import LOG_NAME, SWEEP_NAME, claim, write_whole

CONTINUE = "The same command continues: finished cells stay, the others take up their checkpoint."


class CellsFailed(UserError):
    """Some cells of a sweep have no result; the others stand in the table."""


def free_settings(job: str) -> tuple[str, ...]:
    """Return what may differ between the starts of a cell: what its job says, and the grid itself."""
    of_job = {
        "pretrain": pretrain.FREE_SETTINGS,
        "distill": (
            *fitting.FREE_SETTINGS,
            *pretrain.FREE_SETTINGS,
        ),  # of vectors, or of states and predictions
        "finetune": fitting.FREE_SETTINGS,
    }
    return (*of_job[job], "recipe", "sweep.")


def sweep(cells: Mapping[Cell, Figures | None], workdir: str | Path, num_processes: int) -> list[Outcome]:
    """Run the unfinished cells, say how each ended, and write `results.md` and `results.csv`.

    `cells` holds the figures of finished cells; the outcomes are in the order of the grid.
    """
    outcomes: dict[Cell, Outcome] = {}

    def starting() -> Iterator[Cell]:
        for cell in unfinished(cells):
            print(f"{cell.name}: started, log in {cell.logs / LOG_NAME}", flush=True)
            yield cell

    def ended(cell: Cell, how: processes.Ended) -> None:
        figures = read_figures(cell, free_settings(cell.job)) if how.status == 0 else None
        why = "ended without its result" if how.status == 0 else str(how)
        status = f"failed: {why}" if figures is None else "finished"
        outcomes[cell] = Outcome(cell, status, figures)
        failure = f"{why}: {processes.last_line(cell.logs)}"
        _say(outcomes[cell], failure if figures is None else duration(how.seconds))

    for cell, figures in cells.items():
        if figures is not None:
            outcomes[cell] = Outcome(cell, "finished", figures)
            _say(outcomes[cell], "finished before")
    try:
        processes.run_all(starting(), num_processes, ended)
    except KeyboardInterrupt:
        finished = sum(outcome.figures is not None for outcome in outcomes.values())
        print(f"\nStopped with {finished} cells finished. {CONTINUE}", flush=True)
        raise
    in_order = [outcomes[cell] for cell in cells]
    _write_tables(in_order, store.folder(workdir))
    return in_order


def _write_tables(outcomes: Sequence[Outcome], workdir: Path) -> None:
    markdown = "\n".join(text.markdown(table) for table in tables(outcomes))
    write_whole(workdir / "results.md", markdown)
    write_whole(workdir / "results.csv", text.csv_text(cell_records(outcomes)))
    print("\n" + markdown, end="", flush=True)


def _say(outcome: Outcome, note: str) -> None:
    figures = outcome.figures
    figure = f"{figures.main} {figures.value:.4f}  " if figures is not None else ""
    print(f"{outcome.cell.name}: {figure}{note}", flush=True)


def unfinished(cells: Mapping[Cell, Figures | None]) -> list[Cell]:
    """Return the cells that have to run."""
    return [cell for cell, figures in cells.items() if figures is None]


def main(argv: list[str]) -> None:
    """Run the job from the command line; raise `CellsFailed` at the end where a cell has no result."""
    invocation = cli.parse("sweep", argv)
    flags = invocation.flags
    if flags["processes"] < 1:
        raise UserError("--processes counts from 1.")
    grid = plan(flags["job"], argv, invocation.workdir)
    free = free_settings(grid[0].job)
    cells = {cell: read_figures(cell, free) for cell in grid}  # all now: a strange folder is said first
    if flags["print"]:
        for cell, figures in cells.items():
            print(f"# {cell.name}: {'to run' if figures is None else 'finished'}\n{shlex.join(cell.command)}")
        return
    if flags["slurm"]:
        if not unfinished(cells):
            raise UserError("Every cell is finished; run the sweep without --slurm to see the table.")
        print(processes.slurm_script(unfinished(cells), flags["processes"]))
        return
    claim(store.folder(invocation.workdir), "sweep")
    cli.write_config(invocation.config, invocation.workdir, SWEEP_NAME)
    # A scheduler's SIGTERM stops the cells as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes = sweep(cells, invocation.workdir, flags["processes"])
    failed = [outcome for outcome in outcomes if outcome.figures is None]
    if failed:
        names = "".join(f"\n  {o.cell.logs / LOG_NAME}: {o.status}" for o in failed)
        raise CellsFailed(f"{len(failed)} of {len(outcomes)} cells have no result:{names}\n{CONTINUE}")
