"""The fine-tuning part of a report: the paper's tables 1 and 2 with ours beside them, own tasks, recipes."""

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from eelbert_jax.reporting import published
from eelbert_jax.reporting.published import AVERAGES, MEASURES, SCORE_METRICS, TASK_NAMES, Figure
from eelbert_jax.reporting.scores import Experiment, Model, Scores, Summary, average
from eelbert_jax.reporting.text import NONE, Table, count, millions, number
from eelbert_jax.training.writer import duration

MISSING = "**missing**"
DEGENERATE, NO_SIGNAL = "†", "‡"
FLAGS = (
    f"{DEGENERATE}: a seed is degenerate, it gives every development example the same class.",
    f"{NO_SIGNAL}: no signal, not above the majority class.",
)
PRESENT = "Mean of the tasks present (not the paper's score)"


class _Column(NamedTuple):
    """Hold a heading and the cells of a (task, metric), an average, `PRESENT`."""

    title: str
    figure: Callable[[str, str], str]
    average: Callable[[str], str]
    present: str


def comparison(title: str, reported: Sequence[str], models: Sequence[Model], scores: Scores) -> Table:
    """Return one of the paper's tables: tasks down, our models across, each beside what the paper reports.

    Without `models` the baselines of `scores` stand alone.
    """
    columns = list(_columns(reported, models, scores))
    rows = [
        (label, *(column.figure(task, metric) for column in columns))
        for task, metric, label in MEASURES
        if any(published.score(name, task, metric) for name in reported)
        or any(model.summary(task, metric) is not None for model in models or scores.baselines)
    ]
    rows += [(name, *(column.average(name) for column in columns)) for name in AVERAGES]
    rows.append((PRESENT, *(column.present for column in columns)))
    absent = [name for name in reported if name not in {model.name for model in models}]
    notes = (
        *([f"**No run here of {', '.join(absent)}**: their columns are left out."] if absent else []),
        *_missing_notes(models),
        *_present_notes(models),
        "measured here: mean ± standard deviation over n seeds of the best step on the development set, and "
        "the median, which is what the paper reports [R]. Averages: of the means, and of the medians.",
        *FLAGS,
    )
    return Table(title, ("", *(column.title for column in columns)), tuple(rows), notes)


def _columns(reported: Sequence[str], models: Sequence[Model], scores: Scores) -> Iterator[_Column]:
    def of_majority(name: str) -> str:
        found = average(scores.majority_of, AVERAGES[name])
        return _missing(found.missing) if found.missing else number(found.value)

    def ours(model: Model, title: str, missing: str) -> _Column:
        return _Column(
            title,
            lambda task, metric: measured(model, task, metric, scores, missing),
            lambda name: _both_averages(model, AVERAGES[name]),
            _present_cell(model),
        )

    yield _Column("majority class", lambda *key: number(scores.majority_of(*key)), of_majority, NONE)
    for model in scores.baselines:
        yield ours(model, model.label, NONE)
    for model in models:
        yield ours(model, f"{model.label}, measured here", MISSING)
        if model.name in reported:
            yield _reported(model)


def _reported(model: Model) -> _Column:

    def cell(task: str, metric: str) -> str:
        flag = "" if published.has_signal(model.name, task, metric) else NO_SIGNAL
        return figure(published.score(model.name, task, metric)) + flag

    return _Column(
        "recollected, unverified" if published.is_unverified(model.name) else "reported",
        cell,
        lambda name: figure(published.average_score(model.name, name)),
        figure(_reported_average(model.name, _present(model))),
    )


def measured(model: Model, task: str, metric: str, scores: Scores, missing: str) -> str:
    """Return a cell of what was measured, flagged where it means nothing."""
    summary = model.summary(task, metric)
    if summary is None:
        return missing
    majority = scores.majority_of(task, metric)
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


def _missing(tasks: Sequence[str]) -> str:
    return f"{MISSING}: {task_list(tasks)}"


def _both_averages(model: Model, tasks: Sequence[str]) -> str:
    means, medians = average(model.mean, tasks), average(model.median, tasks)
    if means.missing:
        return _missing(means.missing)
    return f"{number(means.value)} (of medians {number(medians.value)})"


def _present(model: Model) -> tuple[str, ...]:
    return average(model.mean, SCORE_METRICS).present


def _present_cell(model: Model) -> str:
    means = average(model.mean, SCORE_METRICS)
    if means.value is None:
        return MISSING
    return f"{number(means.value)} ({len(means.present)} of {len(SCORE_METRICS)} tasks)"


def _reported_average(model: str | None, tasks: Sequence[str]) -> Figure | None:

    def lookup(task: str, metric: str) -> float | None:
        found = published.score(model, task, metric)
        return None if found is None else found.value

    found = average(lookup, tasks)
    if found.value is None or found.missing:
        return None
    figures = [published.score(model, task, metric) for task in tasks for metric in SCORE_METRICS[task]]
    return Figure(found.value, published.weakest([value.mark for value in figures if value is not None]))


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
        sets.setdefault(_present(model), []).append(model.label)
    notes = [
        f"Tasks present of {', '.join(labels)}: {task_list(tasks) or 'none'}."
        for tasks, labels in sets.items()
    ]
    if len(sets) > 1:
        notes.append("**The means of the tasks present are over different tasks: do not compare them.**")
    return notes


def unofficial_measures(scores: Scores) -> list[tuple[str, str]]:
    """Return every (task, metric) that is no official split of GLUE."""
    found = {
        (task, metric)
        for model in scores.everyone
        for task, experiment in model.chosen.items()
        if not experiment.official
        for metric in experiment.metrics
    }
    return sorted(found)


def unofficial(scores: Scores) -> Table:
    """Return the splits that are not GLUE's official ones, which are in no average; it may have no rows."""
    rows = [
        (
            f"{task}, {metric}",
            number(scores.majority_of(task, metric)),
            *(measured(model, task, metric, scores, NONE) for model in scores.everyone),
        )
        for task, metric in unofficial_measures(scores)
    ]
    columns = ("", "majority class", *(model.label for model in scores.everyone))
    notes = ("Not official splits: in no average, and not to be compared with published figures.", *FLAGS)
    return Table("Unofficial splits", columns, tuple(rows), notes)


def own_tasks(scores: Scores) -> list[Table]:
    """Return a table for every task of users' own files: models down, the best first, metrics across.

    Those of a labelled test file, which nothing was chosen by, stand behind those of development.
    """
    tasks = dict.fromkeys(task for model in scores.everyone for task in model.chosen)
    return [_own_task(task, scores) for task in sorted(tasks)]


def _own_task(task: str, scores: Scores) -> Table:
    models = [model for model in scores.everyone if task in model.chosen]
    metrics = tuple(dict.fromkeys(name for model in models for name in model.chosen[task].metrics))
    models.sort(key=lambda model: model.mean(task, metrics[0]) or 0.0, reverse=True)
    tested = [name for name in metrics if any(model.chosen[task].test_summary(name) for model in models)]
    of_majority = [number(scores.majority_of(task, metric)) for metric in metrics]
    rows = [("majority class", *of_majority, *[NONE] * len(tested))]
    for place, model in enumerate(models):
        cells = [measured(model, task, metric, scores, NONE) for metric in metrics]
        tests = map(model.chosen[task].test_summary, tested)
        cells += [NONE if summary is None else summary_text(summary) for summary in tests]
        if place == 0 and len(models) > 1:
            cells[0] = f"**{cells[0]}**"
        rows.append((model.label, *cells))
    run = models[0].chosen[task].runs[0]
    examples = [f"{number:,} of {split}" for split, number in run.result.num_examples.items()]
    flags = [flag for flag in FLAGS if any(flag[0] in cell for row in rows for cell in row)]
    notes = (f"Examples: {', '.join(examples)}. {metrics[0]} chose the best step.", *flags)
    return Table(task, ("", *metrics, *(f"test {name}" for name in tested)), tuple(rows), notes)


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
    recipe, results = experiment.recipe, [run.result for run in experiment.runs]
    best = statistics.fmean(result.best_step for result in results)
    return (
        f"{recipe.learning_rate:g}",
        str(recipe.batch_size),
        f"{recipe.num_epochs:g}",
        str(num_tried),
        ", ".join(str(result.seed) for result in results),
        str(experiment.num_degenerate),
        f"{best:,.0f} of {results[0].total_steps:,}",
        duration(statistics.fmean(result.seconds for result in results)),
        ", ".join(sorted({result.hardware for result in results})),
        count(recipe.num_train),
        ", ".join(sorted({result.commit[:12] if result.commit else NONE for result in results})),
    )


def starting_points(models: Sequence[Model]) -> Table:
    """Return what was fine-tuned: parameters, and how much pre-training each had."""
    rows = []
    for model in models:
        start = model.start
        cells = (NONE if model.embedding is None else "from scratch", NONE, NONE)
        if start is not None:
            cells = (millions(start.tokens), count(start.step), number(start.heldout_loss))
        rows.append((model.label, count(model.parameters), f"{model.parameters * 4 / 1e6:.2f}", *cells))
    columns = ("model", "parameters (2-class)", "MB (float32)", "tokens read", "steps", "held-out loss")
    return Table("What was fine-tuned", columns, tuple(rows))


def average_records(scores: Scores) -> list[dict[str, object]]:
    """Return one record for every model and average; an incomplete one has no figure."""
    records: list[dict[str, object]] = []
    for model in (*scores.models, *scores.baselines):
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


def score_records(scores: Scores) -> list[dict[str, object]]:
    """Return one record for every model, task, metric and recipe, also of recipes that no table shows."""
    return [
        _score_record(model, task, experiment, metric, summary, scores)
        for model in (*scores.models, *scores.baselines)
        for task, experiments in model.tried.items()
        for experiment in experiments
        for metric in experiment.metrics
        if (summary := experiment.summary(metric)) is not None
    ]


def _score_record(
    model: Model, task: str, experiment: Experiment, metric: str, summary: Summary, scores: Scores
) -> dict[str, object]:
    reported = published.score(model.name, task, metric)
    return {
        "model": model.label,
        "task": task,
        "official": experiment.official,
        "metric": metric,
        "shown": experiment is model.chosen[task],
        **summary._asdict(),
        "majority": scores.majority_of(task, metric),
        "reported": reported and reported.value,
        "mark": reported and reported.mark,
        **experiment.recipe._asdict(),
        "seeds": " ".join(str(run.result.seed) for run in experiment.runs),
        "degenerate_seeds": experiment.num_degenerate,
        "total_steps": experiment.runs[0].result.total_steps,
        "seconds": statistics.fmean(run.result.seconds for run in experiment.runs),
        "hardware": experiment.runs[0].result.hardware,
    }
