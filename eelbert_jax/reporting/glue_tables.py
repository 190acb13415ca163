"""The fine-tuning part of a report: the paper's tables 1 and 2 with ours beside them, and how ours came."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from eelbert_jax.reporting import published
from eelbert_jax.reporting.published import AVERAGES, MEASURES, SCORE_METRICS, TASK_NAMES, Figure, Measure
from eelbert_jax.reporting.scores import Average, Experiment, Lookup, Model, Summary, average
from eelbert_jax.reporting.text import NONE, Table, count, millions, number
from eelbert_jax.training.writer import duration

MISSING = "**missing**"
DEGENERATE, NO_SIGNAL = "†", "‡"
FLAGS = (
    f"{DEGENERATE}: a seed is degenerate, it gives every development example the same class.",
    f"{NO_SIGNAL}: no signal, not above the majority class.",
)
PRESENT = "Mean of the tasks present (not the paper's score)"


class Baselines(NamedTuple):
    """What needs no BERT: the most frequent label, and classifiers such as a bag of words."""

    majority: Mapping[tuple[str, str], float]
    models: tuple[Model, ...]

    def majority_of(self, task: str, metric: str) -> float | None:
        """Return the figure of the most frequent label; a `Lookup`."""
        return self.majority.get((task, metric))


def split_baselines(models: Sequence[Model]) -> tuple[list[Model], Baselines]:
    """Return the BERTs, in the paper's order where the paper has them, and the baselines."""
    majority = {
        (task, metric): value
        for model in models
        for task, experiment in model.chosen.items()
        for metric, value in experiment.runs[0].majority.items()
    }
    order = (*published.TABLE_1_MODELS, *published.TABLE_2_MODELS)
    berts = sorted(
        (model for model in models if model.size is not None),
        key=lambda model: (order.index(model.name) if model.name in order else len(order), model.label),
    )
    others = sorted((model for model in models if model.size is None), key=lambda model: model.label)
    return berts, Baselines(majority, tuple(others))


def comparison(title: str, reported: Sequence[str], models: Sequence[Model], baselines: Baselines) -> Table:
    """Return one of the paper's tables: tasks down, our models across, each beside what the paper reports.

    Args:
      title: its heading.
      reported: models of the paper's table.
      models: ours, in the order of the columns; without one the baselines stand alone.
      baselines: what they have to beat.
    """
    columns = ["", "majority class", *(model.label for model in baselines.models)]
    for model in models:
        columns.append(f"{model.label}, measured here")
        if model.name in reported:
            columns.append("reported")
    rows = [
        _measure_row(measure, reported, models, baselines)
        for measure in MEASURES
        if _is_row(measure, reported, models or baselines.models)
    ]
    for name, tasks in AVERAGES.items():
        rows.append(_average_row(name, tasks, reported, models, baselines))
    rows.append(_present_row(reported, models, baselines))
    notes = (
        *_absent(reported, models),
        *_missing_notes(models),
        *_present_notes(models),
        "measured here: mean ± standard deviation over n seeds of the best step on the development set, and "
        "the median, which is what the paper reports [R]. Averages: of the means, and of the medians.",
        *FLAGS,
    )
    return Table(title, tuple(columns), tuple(rows), notes)


def _is_row(measure: Measure, reported: Sequence[str], models: Sequence[Model]) -> bool:
    """Whether a line has anything to say: the paper's table has it, or one of ours was measured."""
    key = (measure.task, measure.metric)
    return any(published.score(name, *key) for name in reported) or any(
        model.summary(*key) is not None for model in models
    )


def _measure_row(
    measure: Measure, reported: Sequence[str], models: Sequence[Model], baselines: Baselines
) -> tuple[str, ...]:
    task, metric, label = measure
    cells = [label, number(baselines.majority_of(task, metric))]
    cells += [measured(model, task, metric, baselines, NONE) for model in baselines.models]
    for model in models:
        cells.append(measured(model, task, metric, baselines, MISSING))
        if model.name in reported:
            flag = "" if published.has_signal(model.name, task, metric) else NO_SIGNAL
            cells.append(figure(published.score(model.name, task, metric)) + flag)
    return tuple(cells)


def measured(model: Model, task: str, metric: str, baselines: Baselines, missing: str) -> str:
    """Return a cell of what was measured, flagged where it means nothing."""
    summary = model.summary(task, metric)
    if summary is None:
        return missing
    majority = baselines.majority_of(task, metric)
    flags = DEGENERATE if model.chosen[task].num_degenerate else ""
    if majority is not None and summary.mean <= majority:
        flags += NO_SIGNAL
    return summary_text(summary) + flags


def summary_text(summary: Summary) -> str:
    """Return "0.812 ± 0.004 (median 0.811, n=3)", or "0.812 (n=1)"."""
    if summary.sd is None:
        return f"{summary.mean:.3f} (n=1)"
    return f"{summary.mean:.3f} ± {summary.sd:.3f} (median {summary.median:.3f}, n={summary.n})"


def figure(value: Figure | None) -> str:
    """Return a published figure with its mark."""
    return NONE if value is None else f"{value.value:.3f} [{value.mark}]"


def task_list(tasks: Iterable[str]) -> str:
    """Return the names of tasks as GLUE spells them."""
    return ", ".join(TASK_NAMES[task] for task in tasks)


def _average_row(
    name: str, tasks: Sequence[str], reported: Sequence[str], models: Sequence[Model], baselines: Baselines
) -> tuple[str, ...]:
    """Return the line of one of the paper's averages: a figure only where all of its tasks are there."""

    def cell(lookup: Lookup) -> str:
        found = average(lookup, tasks)
        return f"{MISSING}: {task_list(found.missing)}" if found.missing else number(found.value)

    cells = [name, cell(baselines.majority_of)]
    cells += [_both_averages(model, tasks) for model in baselines.models]
    for model in models:
        cells.append(_both_averages(model, tasks))
        if model.name in reported:
            cells.append(figure(published.average_score(model.name, name)))
    return tuple(cells)


def _both_averages(model: Model, tasks: Sequence[str]) -> str:
    means, medians = average(model.mean, tasks), average(model.median, tasks)
    if means.missing:
        return f"{MISSING}: {task_list(means.missing)}"
    return f"{number(means.value)} (of medians {number(medians.value)})"


def present_average(model: Model) -> Average:
    """Return the mean over those tasks of the paper's averages that the model was measured on."""
    return average(model.mean, SCORE_METRICS)


def _reported_average(model: str | None, tasks: Sequence[str]) -> Figure | None:
    """Return the average over `tasks` of what the paper reports, where it reports all of them."""

    def lookup(task: str, metric: str) -> float | None:
        found = published.score(model, task, metric)
        return None if found is None else found.value

    found = average(lookup, tasks)
    if found.value is None or found.missing:
        return None
    figures = [published.score(model, task, metric) for task in tasks for metric in SCORE_METRICS[task]]
    return Figure(found.value, published.weakest([value.mark for value in figures if value is not None]))


def _present_row(reported: Sequence[str], models: Sequence[Model], baselines: Baselines) -> tuple[str, ...]:
    cells = [PRESENT, NONE]
    for model in baselines.models:
        cells.append(_present_cell(model))
    for model in models:
        cells.append(_present_cell(model))
        if model.name in reported:
            cells.append(figure(_reported_average(model.name, present_average(model).present)))
    return tuple(cells)


def _present_cell(model: Model) -> str:
    means = present_average(model)
    if means.value is None:
        return MISSING
    return f"{number(means.value)} ({len(means.present)} of {len(SCORE_METRICS)} tasks)"


def _absent(reported: Sequence[str], models: Sequence[Model]) -> list[str]:
    names = [name for name in reported if name not in {model.name for model in models}]
    return [f"**No run here of {', '.join(names)}**: their columns are left out."] if names else []


def _missing_notes(models: Sequence[Model]) -> list[str]:
    """Name what was not measured, models with the same gaps together."""
    gaps: dict[tuple[str, ...], list[str]] = {}
    for model in models:
        absent = tuple(task for task in SCORE_METRICS if task not in model.chosen)
        gaps.setdefault(absent, []).append(model.label)
    return [
        f"**Missing** of {', '.join(labels)}: {task_list(absent)}. Not measured, not scored."
        for absent, labels in gaps.items()
        if absent
    ]


def _present_notes(models: Sequence[Model]) -> list[str]:
    """Say over which tasks each mean of those present goes, and warn where they differ."""
    sets: dict[tuple[str, ...], list[str]] = {}
    for model in models:
        sets.setdefault(present_average(model).present, []).append(model.label)
    notes = [
        f"Tasks present of {', '.join(labels)}: {task_list(tasks) or 'none'}."
        for tasks, labels in sets.items()
    ]
    if len(sets) > 1:
        notes.append("**The means of the tasks present are over different tasks: do not compare them.**")
    return notes


def unofficial(models: Sequence[Model], baselines: Baselines) -> Table:
    """Return the tasks that are no official split of GLUE, which are in no average; it may have no rows."""
    everyone = (*baselines.models, *models)
    found = dict.fromkeys(
        (task, metric)
        for model in everyone
        for task, experiment in model.chosen.items()
        if not experiment.runs[0].official
        for metric in experiment.runs[0].metrics
    )
    rows = [
        (
            f"{task}, {metric}",
            number(baselines.majority_of(task, metric)),
            *(measured(model, task, metric, baselines, NONE) for model in everyone),
        )
        for task, metric in sorted(found)
    ]
    columns = ("", "majority class", *(model.label for model in everyone))
    notes = ("Not official splits: in no average, and not to be compared with published figures.", *FLAGS)
    return Table("Unofficial splits", columns, tuple(rows), notes)


def recipes(models: Sequence[Model]) -> Table:
    """Return how every figure was measured: recipe, seeds, steps, time, hardware."""
    rows = [
        (model.label, TASK_NAMES.get(task, task), *_recipe_cells(experiment, len(model.tried[task])))
        for model in models
        for task, experiment in model.chosen.items()
    ]
    columns = (
        *("model", "task", "rate", "batch", "epochs", "recipes tried", "seeds", "degenerate seeds"),
        *("best step of all (mean)", "time a run (mean)", "hardware", "training examples", "commit"),
    )
    notes = (
        "Recipes tried: where more than one, the shown one is the best of them on the development set, those "
        "with the most seeds first.",
    )
    return Table("How it was measured", columns, tuple(rows), notes)


def _recipe_cells(experiment: Experiment, num_tried: int) -> tuple[str, ...]:
    runs, recipe = experiment.runs, experiment.recipe
    best = statistics.fmean(run.best_step for run in runs)
    return (
        f"{recipe.learning_rate:g}",
        str(recipe.batch_size),
        f"{recipe.num_epochs:g}",
        str(num_tried),
        ", ".join(str(run.seed) for run in runs),
        str(experiment.num_degenerate),
        f"{best:,.0f} of {runs[0].total_steps:,}",
        duration(statistics.fmean(run.seconds for run in runs)),
        ", ".join(sorted({run.hardware for run in runs})),
        count(recipe.num_train),
        ", ".join(sorted({run.commit[:12] if run.commit else NONE for run in runs})),
    )


def starting_points(models: Sequence[Model]) -> Table:
    """Return what was fine-tuned: parameters, and how much pre-training each had."""
    rows = []
    for model in models:
        start = model.checkpoint
        cells = (NONE if model.size is None else "from scratch", NONE, NONE)
        if start is not None:
            cells = (millions(start.tokens), count(start.step), number(start.heldout_loss))
        rows.append((model.label, count(model.parameters), f"{model.parameters * 4 / 1e6:.2f}", *cells))
    columns = ("model", "parameters (2-class)", "MB (float32)", "tokens read", "steps", "held-out loss")
    return Table("What was fine-tuned", columns, tuple(rows))


def average_records(models: Sequence[Model], baselines: Baselines) -> list[dict[str, object]]:
    """Return one record for every model and average; an incomplete one has no figure."""
    records: list[dict[str, object]] = []
    for model in (*models, *baselines.models):
        for name, tasks in AVERAGES.items():
            means, medians = average(model.mean, tasks), average(model.median, tasks)
            reported = published.average_score(model.name, name)
            records.append(
                {
                    "model": model.label,
                    "average": name,
                    "of_means": None if means.missing else means.value,
                    "of_medians": None if means.missing else medians.value,
                    "missing": " ".join(means.missing),
                    "reported": reported and reported.value,
                    "mark": reported and reported.mark,
                }
            )
    return records


def score_records(models: Sequence[Model], baselines: Baselines) -> list[dict[str, object]]:
    """Return one record for every model, task, metric and recipe, also of recipes that no table shows."""
    records: list[dict[str, object]] = []
    for model in (*models, *baselines.models):
        for task, experiments in model.tried.items():
            for experiment in experiments:
                for metric in experiment.runs[0].metrics:
                    summary = experiment.summary(metric)
                    if summary is None:
                        continue
                    reported = published.score(model.name, task, metric)
                    records.append(
                        {
                            "model": model.label,
                            "task": task,
                            "official": experiment.runs[0].official,
                            "metric": metric,
                            "shown": experiment is model.chosen[task],
                            **summary._asdict(),
                            "majority": baselines.majority_of(task, metric),
                            "reported": reported and reported.value,
                            "mark": reported and reported.mark,
                            **experiment.recipe._asdict(),
                            "seeds": " ".join(str(run.seed) for run in experiment.runs),
                            "degenerate_seeds": experiment.num_degenerate,
                            "total_steps": experiment.runs[0].total_steps,
                            "seconds": statistics.fmean(run.seconds for run in experiment.runs),
                            "hardware": experiment.runs[0].hardware,
                        }
                    )
    return records
