"""What has become of the cells of a sweep, and the tables of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eelbert_jax.errors import UserError
from eelbert_jax.record import Result
from eelbert_jax.reporting import text
from eelbert_jax.reporting.scores import summarize
from eelbert_jax.sweeping.grid import Cell, Config, short_names
from eelbert_jax.training.writer import read_metrics
from eelbert_jax.workdir import (
    CHECKPOINTS_NAME,
    FIGURES_NAME,
    METRICS_NAME,
    RESULT_NAME,
    changed_settings,
    read_json,
)

SEED_KEY, TASK_KEY = "seed", "task"
BEST = "best"


class Figures(NamedTuple):
    """Hold a finished cell's columns of the table, and the name of the one it is judged by."""

    values: Mapping[str, Any]
    main: str

    @property
    def value(self) -> float:
        """The figure that the cell is judged by."""
        return float(self.values[self.main])


class Outcome(NamedTuple):
    """Say what became of a cell: "finished" with figures, or why there are none."""

    cell: Cell
    status: str
    figures: Figures | None


def read_figures(cell: Cell, free_settings: Sequence[str]) -> Figures | None:
    """Return what a cell has come to, None where it has to run; refuse a finished run of other settings."""
    if _of_masked_lm(cell):
        figures = pretraining_figures(cell.workdir, cell.config)
    else:
        read = distilling_figures if cell.job == "distill" else finetuning_figures
        figures = read(cell.workdir)
    changed = changed_settings(cell.config.to_dict(), cell.workdir, free_settings) if figures else []
    if changed:
        raise UserError(
            f"{cell.workdir} holds a finished run of other settings: {'; '.join(changed)}. Use another "
            "--workdir for this sweep, or remove that folder."
        )
    return figures


def _of_masked_lm(cell: Cell) -> bool:
    """Whether a cell learns to predict tokens, alone or with a teacher."""
    return cell.job == "pretrain" or (cell.job == "distill" and "teacher" in cell.config)


def pretraining_figures(workdir: Path, config: Config) -> Figures | None:
    """Read a pre-training: finished when its last step is evaluated, in `metrics.jsonl`, and then saved."""
    if (workdir / CHECKPOINTS_NAME / str(config.total_steps)).is_dir():
        for record in reversed(read_metrics(workdir / METRICS_NAME)):
            if record["step"] == config.total_steps and "heldout_loss" in record:
                return Figures(record, "heldout_loss")
    return None


def distilling_figures(workdir: Path) -> Figures | None:
    """Read a distillation of vectors: finished when `figures.json`, written last, is there."""
    path = workdir / FIGURES_NAME
    return Figures(read_json(path), "heldout_cosine") if path.is_file() else None


def finetuning_figures(workdir: Path) -> Figures | None:
    """Read a fine-tuning: finished when `result.json`, written last, is whole."""
    try:
        result = Result.read(workdir / RESULT_NAME)
    except UserError:  # not there, or torn: the cell runs, and its checkpoints know how far it is
        return None
    facts = {name: getattr(result, name) for name in ("best_step", "total_steps", "degenerate", "seconds")}
    return Figures({**result.metrics, **facts}, result.main_metric)


def cell_records(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a record a cell: what the grid set, its figures, its status; None where it has none such."""
    names = short_names(outcomes[0].cell.config)
    keys = dict.fromkeys(key for outcome in outcomes for key in outcome.cell.overrides)
    columns = dict.fromkeys(
        name for outcome in outcomes if outcome.figures for name in outcome.figures.values
    )
    best = _best([(outcome.cell, outcome.figures and outcome.figures.value) for outcome in outcomes])
    return [
        {names[key]: outcome.cell.overrides.get(key) for key in keys}
        | {name: outcome.figures.values.get(name) if outcome.figures else None for name in columns}
        | {"status": outcome.status, BEST: mark}
        for outcome, mark in zip(outcomes, best, strict=True)
    ]


def seed_records(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return a record a setting with its main figure over the seeds; none where the grid varies no seed."""
    groups: dict[tuple[tuple[str, Any], ...], list[tuple[Cell, Figures]]] = {}
    for cell, _, figures in outcomes:
        if SEED_KEY in cell.overrides and figures is not None:
            setting = tuple((key, value) for key, value in cell.overrides.items() if key != SEED_KEY)
            groups.setdefault(setting, []).append((cell, figures))
    names = short_names(outcomes[0].cell.config)
    summaries = [summarize([figures.value for _, figures in group]) for group in groups.values()]
    first = [group[0] for group in groups.values()]
    best = _best([(cell, summary.mean) for (cell, _), summary in zip(first, summaries, strict=True)])
    return [
        {names[key]: value for key, value in setting}
        | {"figure": figures.main, **summary._asdict(), BEST: mark}
        for setting, (_, figures), summary, mark in zip(groups, first, summaries, best, strict=True)
    ]


def _best(values: Sequence[tuple[Cell, float | None]]) -> list[str | None]:
    """Mark the best of the values; of several tasks, one for each."""
    marks: list[str | None] = [None] * len(values)
    for task in dict.fromkeys(cell.overrides.get(TASK_KEY) for cell, _ in values):
        sign = -1 if _of_masked_lm(values[0][0]) else 1  # a loss, or a score
        of_task = {
            place: sign * value
            for place, (cell, value) in enumerate(values)
            if value is not None and cell.overrides.get(TASK_KEY) == task
        }
        if len(of_task) > 1:
            marks[max(of_task, key=lambda place: of_task[place])] = BEST
    return marks


def tables(outcomes: Sequence[Outcome]) -> list[text.Table]:
    """Return the table of all cells and, where the grid varies seeds, that over seeds."""
    titled = {"Cells": cell_records(outcomes), "Over seeds": seed_records(outcomes)}
    found = []
    for title, records in titled.items():
        columns = tuple(dict.fromkeys(name for record in records for name in record))
        rows = tuple(tuple(_cell_text(record.get(name)) for name in columns) for record in records)
        found.append(text.Table(title, columns, rows))
    return [table for table in found if table.rows]


def _cell_text(value: Any) -> str:
    if value is None:
        return text.NONE
    return f"{value:.6g}" if isinstance(value, float) else str(value)
