"""The pre-training part of a report: what each run reached, beside what needs no context at all."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eelbert_jax.corpus.rows import Rows
from eelbert_jax.corpus.statistics import unigram_accuracy, unigram_entropy
from eelbert_jax.reporting.runs import PretrainingRun
from eelbert_jax.reporting.text import NONE, Table, count, millions, number
from eelbert_jax.training.writer import duration


class Unigram(NamedTuple):
    """What token frequencies alone predict of the held-out rows; the entropy in nats a token."""

    entropy: float
    accuracy: float


def unigrams(runs: Sequence[PretrainingRun]) -> dict[tuple[str, int | None], Unigram]:
    """Return the baseline of every set of held-out rows that is on this machine.

    Returns:
      By (folder of rows, number of rows evaluated), the `evaluated` of a run.

    Raises:
      UserError: the rows are there and damaged.
    """
    found = {}
    for directory, eval_rows in dict.fromkeys(evaluated(run) for run in runs):
        if Path(directory).is_dir():
            rows = Rows.open(directory, "heldout")
            ids = rows[np.arange(min(len(rows), eval_rows or len(rows)))]
            special = rows.vocabulary.special_ids
            found[directory, eval_rows] = Unigram(
                unigram_entropy(ids, special), unigram_accuracy(ids, special)
            )
    return found


def evaluated(run: PretrainingRun) -> tuple[str, int | None]:
    """Return which held-out rows a run was evaluated on."""
    return run.rows, run.eval_rows


def labels(runs: Sequence[PretrainingRun]) -> list[str]:
    """Return what to call each run: its model, and its folder where several are of one kind."""
    counts = Counter(run.label for run in runs)
    return [run.label if counts[run.label] == 1 else f"{run.label} ({run.folder})" for run in runs]


def pretraining(runs: Sequence[PretrainingRun], baselines: Mapping[tuple[str, int | None], Unigram]) -> Table:
    """Return the table of runs, the baselines first."""
    rows = [_baseline_row(directory, baseline) for (directory, _), baseline in baselines.items()]
    rows += [_row(run, label) for run, label in zip(runs, labels(runs), strict=True)]
    columns = (
        *("model", "parameters (MLM)", "parameters (2-class)", "tokens", "steps", "held-out loss"),
        *("accuracy", "perplexity", "tokens/s", "hardware", "time", "recipe", "commit"),
    )
    notes = [
        "Losses in nats a target. Steps, tokens and figures are those of the last evaluation; tokens/s is "
        "the median of the log's lines, time is that of training alone. Parameters (MLM): without pooler, "
        "decoder only where tied.",
    ]
    if len({evaluated(run) for run in runs}) > 1:
        notes.append("**Held-out rows differ between runs: compare losses of runs on the same rows only.**")
    absent = [label for run, label in zip(runs, labels(runs), strict=True) if evaluated(run) not in baselines]
    if absent:
        notes.append(
            f"**No unigram baseline**, the prepared rows are not on this machine: {', '.join(absent)}."
        )
    return Table("Held-out figures", columns, tuple(rows), tuple(notes))


def _baseline_row(directory: str, baseline: Unigram) -> tuple[str, ...]:
    figures = (number(baseline.entropy), number(baseline.accuracy), number(math.exp(baseline.entropy), 1))
    name = f"unigram: frequencies alone ({Path(directory).name})"
    return (name, *[NONE] * 4, *figures, *[NONE] * 5)


def _row(run: PretrainingRun, label: str) -> tuple[str, ...]:
    last = run.curve[-1] if run.curve else None
    step = None if last is None else last.step
    done = f"{count(step)} of {run.total_steps:,}" + ("" if step == run.total_steps else " (unfinished)")
    return (
        label,
        *(count(run.parameters.get(convention)) for convention in ("MLM", "2-class")),
        millions(None if step is None else run.tokens_at(step)),
        done,
        number(last and last.loss),
        number(last and last.accuracy),
        number(last and last.perplexity, 1),
        count(speed(run)),
        hardware(run),
        NONE if run.seconds is None else duration(run.seconds),
        f"{run.recipe}; batch {run.batch_size}, rate {run.learning_rate:g}, seed {run.seed}",
        NONE if run.commit is None else run.commit[:12],
    )


def speed(run: PretrainingRun) -> int | None:
    """Return the median tokens/s of the log."""
    return round(statistics.median(value for _, value in run.speeds)) if run.speeds else None


def hardware(run: PretrainingRun) -> str:
    """Return the devices, as "8 x NAME"."""
    counts = Counter(run.devices)
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in counts.items())


def records(
    runs: Sequence[PretrainingRun], baselines: Mapping[tuple[str, int | None], Unigram]
) -> list[dict[str, object]]:
    """Return one record a run and evaluation: the curves, with what each run is."""
    return [
        {
            "model": label,
            "folder": run.folder,
            "parameters_mlm": run.parameters.get("MLM"),
            "parameters_2_class": run.parameters.get("2-class"),
            "step": point.step,
            "total_steps": run.total_steps,
            "tokens": run.tokens_at(point.step),
            "heldout_loss": point.loss,
            "heldout_accuracy": point.accuracy,
            "heldout_perplexity": point.perplexity,
            "unigram_entropy": baselines[evaluated(run)].entropy if evaluated(run) in baselines else None,
            "unigram_accuracy": baselines[evaluated(run)].accuracy if evaluated(run) in baselines else None,
            "tokens_per_second": speed(run),
            "seconds": run.seconds,
            "hardware": hardware(run),
            "recipe": run.recipe,
            "batch_size": run.batch_size,
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            "commit": run.commit,
        }
        for run, label in zip(runs, labels(runs), strict=True)
        for point in run.curve
    ]
