"""What share of BERT's score an EELBERT keeps, measured beside reported."""

from collections.abc import Sequence
from typing import NamedTuple

from eelbert_jax.reporting import published
from eelbert_jax.reporting.glue_tables import NO_SIGNAL, Baselines, figure, task_list
from eelbert_jax.reporting.published import AVERAGES, MEASURES, SCORE_METRICS, Figure
from eelbert_jax.reporting.scores import Model, average
from eelbert_jax.reporting.text import NONE, Table, millions, number

COMMON = "Mean of the tasks that both have"


class Ratio(NamedTuple):
    """One line of one pair; `measured` is of medians, None where there is nothing to divide by.

    A ratio has signal where both of its scores are above the majority class.
    """

    pair: str
    line: str
    measured: float | None
    has_signal: bool
    reported: Figure | None
    reported_has_signal: bool


def pairs(models: Sequence[Model]) -> tuple[list[tuple[Model, Model]], list[str]]:
    """Return what is compared, and notes on what is not.

    A share is fair only between models that had the same pre-training, so that unequal budgets are named and
    left out. Source: ours.
    """
    found, notes = [], []
    for small, large in published.RATIO_PAIRS:
        ours = [model for model in models if model.name == small]
        theirs = [model for model in models if model.name == large]
        equal = [(a, b) for a in ours for b in theirs if _tokens(a) == _tokens(b)]
        found += equal
        if ours and theirs and not equal:
            budgets = f"{small} {_budgets(ours)}, {large} {_budgets(theirs)}"
            notes.append(f"**Not compared**, pre-trained on unequal numbers of tokens: {budgets}.")
    return found, notes


def _tokens(model: Model) -> int | None:
    return None if model.checkpoint is None else model.checkpoint.tokens


def _budgets(models: Sequence[Model]) -> str:
    return " and ".join(millions(_tokens(model)) for model in models)


def ratios_of(small: Model, large: Model, baselines: Baselines) -> list[Ratio]:
    """Return the lines of one pair: every metric that both have, then the averages."""
    pair = f"{small.label} / {large.label}"
    lines = [(label, task, metric) for task, metric, label in MEASURES]
    lines += [
        (f"{task}, {metric} (unofficial)", task, metric)
        for task, experiment in small.chosen.items()
        if not experiment.runs[0].official
        for metric in experiment.runs[0].metrics
    ]
    found = []
    for label, task, metric in lines:
        ours, theirs = small.median(task, metric), large.median(task, metric)
        if ours is None or theirs is None:
            continue
        majority = baselines.majority_of(task, metric)
        has_signal = majority is None or min(ours, theirs) > majority
        both = (small.name, large.name)
        reported = _quotient(*(published.score(name, task, metric) for name in both))
        reported_has_signal = all(published.has_signal(name, task, metric) for name in both)
        found.append(Ratio(pair, label, _divide(ours, theirs), has_signal, reported, reported_has_signal))
    for name, tasks in AVERAGES.items():
        shares = average(small.median, tasks), average(large.median, tasks)
        if not any(share.missing for share in shares):
            reported = _quotient(*(published.average_score(model.name, name) for model in (small, large)))
            found.append(Ratio(pair, name, _divide(*(share.value for share in shares)), True, reported, True))
    common = [task for task in SCORE_METRICS if task in small.chosen and task in large.chosen]
    if common:
        share = _divide(*(average(model.median, common).value for model in (small, large)))
        found.append(Ratio(pair, f"{COMMON}: {task_list(common)}", share, True, None, True))
    return found


def _divide(ours: float | None, theirs: float | None) -> float | None:
    """Return the share, None of a score that is not above 0, of which there are no shares."""
    return None if ours is None or theirs is None or theirs <= 0 else ours / theirs


def _quotient(ours: Figure | None, theirs: Figure | None) -> Figure | None:
    if ours is None or theirs is None:
        return None
    return Figure(ours.value / theirs.value, published.weakest([ours.mark, theirs.mark]))


def ratios(models: Sequence[Model], baselines: Baselines) -> tuple[Table, list[Ratio]]:
    """Return the table of shares, its lines down and the pairs across, and the figures in it."""
    compared, notes = pairs(models)
    by_pair = [ratios_of(small, large, baselines) for small, large in compared]
    by_pair = [lines for lines in by_pair if lines]
    lines = dict.fromkeys(ratio.line for of_pair in by_pair for ratio in of_pair)
    rows = []
    for line in lines:
        cells = [line]
        for of_pair in by_pair:
            cells += _cells([ratio for ratio in of_pair if ratio.line == line])
        rows.append(tuple(cells))
    columns = [""]
    for of_pair in by_pair:
        columns += [f"{of_pair[0].pair}, measured here", "reported"]
    claims = [f"The paper: {text} [{mark}]" for text, mark in published.CLAIMS["ratios"]]
    explanation = (
        "Ratios of medians over seeds, of models with equal pre-training. A ratio of reported figures has "
        f"the weaker of their marks. {NO_SIGNAL}: one of the two is not above the majority class, so that a "
        "ratio near 1 says nothing."
    )
    if not rows:
        notes.append("No pair of an EELBERT and its BERT was measured on a common task.")
    table = Table("Share of BERT's score", tuple(columns), tuple(rows), (*notes, explanation, *claims))
    return table, [ratio for of_pair in by_pair for ratio in of_pair]


def _cells(found: Sequence[Ratio]) -> list[str]:
    """Return the two cells of a pair in a line that it has, or has not."""
    if not found:
        return [NONE, NONE]
    (ratio,) = found
    flags = ["" if has_signal else NO_SIGNAL for has_signal in (ratio.has_signal, ratio.reported_has_signal)]
    return [number(ratio.measured) + flags[0], figure(ratio.reported) + flags[1]]


def ratio_records(lines: Sequence[Ratio]) -> list[dict[str, object]]:
    """Return the ratios as records."""
    return [
        {
            "pair": ratio.pair,
            "line": ratio.line,
            "measured": ratio.measured,
            "has_signal": ratio.has_signal,
            "reported": ratio.reported and ratio.reported.value,
            "mark": ratio.reported and ratio.reported.mark,
        }
        for ratio in lines
    ]
