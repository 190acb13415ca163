"""The part of a report on dropped layers: what each strategy costs at each K, beside Poor Man's BERT."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from eelbert_jax.record import Dropped
from eelbert_jax.reporting import published
from eelbert_jax.reporting.published import TASK_NAMES
from eelbert_jax.reporting.runs import FineTuningRun, Recipe
from eelbert_jax.reporting.scores import Summary, choose, experiment
from eelbert_jax.reporting.text import NONE, Table

POINTS = (1, 2, 3)
DROP_THEN_TUNE = ["drop", "tune"]


class Smaller(NamedTuple):
    """Hold the seeds of one smaller model on one task, and those of the model that it was, if they are here.

    Attributes:
      how: the strategy, and the order of dropping and tuning where it is not drop, then tune.
      full: of the same recipe, or of the best one where none is the same: what is only evaluated has none.
    """

    origin: str
    how: str
    dropped: Dropped
    task: str
    metric: str
    score: Summary
    full: Summary | None
    parameters: int
    full_parameters: int | None
    majority: float | None

    @property
    def points(self) -> float | None:
        """What the full model's mean is above this one's, in hundredths, negative where it is below."""
        return None if self.full is None else 100 * (self.full.mean - self.score.mean)


def smaller_models(runs: Sequence[FineTuningRun]) -> list[Smaller]:
    """Return every model that has lost layers, by origin, strategy and K, on every task by every recipe."""
    whole: dict[tuple[str, str], list[FineTuningRun]] = defaultdict(list)
    groups: dict[tuple[str, str, tuple[int, ...], str, Recipe], list[FineTuningRun]] = defaultdict(list)
    for run in runs:
        dropped = run.result.dropped
        if dropped is not None:
            kept = tuple(dropped.kept_layers)
            groups[os.path.normpath(dropped.origin), _how(dropped), kept, run.task, run.recipe].append(run)
        elif run.start is not None:
            whole[os.path.normpath(run.start.workdir), run.task].append(run)
    found = [
        _smaller(origin, how, group, whole[origin, task], recipe)
        for (origin, how, _, task, recipe), group in groups.items()
    ]
    return sorted(found, key=lambda each: (each.origin, each.how, each.dropped.num_dropped, each.task))


def _how(dropped: Dropped) -> str:
    if dropped.order == DROP_THEN_TUNE:
        return dropped.strategy
    return f"{dropped.strategy} ({', '.join(dropped.order)})"


def _smaller(
    origin: str, how: str, runs: Sequence[FineTuningRun], whole: Sequence[FineTuningRun], recipe: Recipe
) -> Smaller:
    first = runs[0].result
    by_recipe: dict[Recipe, list[FineTuningRun]] = defaultdict(list)
    for run in whole:
        by_recipe[run.recipe].append(run)
    tried = {each: experiment(each, group) for each, group in by_recipe.items()}
    full = tried.get(recipe) or (choose(list(tried.values())) if tried else None)
    score = experiment(recipe, runs).summary(first.main_metric)
    assert first.dropped is not None
    assert score is not None
    return Smaller(
        origin,
        how,
        first.dropped,
        runs[0].task,
        first.main_metric,
        score,
        None if full is None else full.summary(first.main_metric),
        first.model.parameters,
        whole[0].result.model.parameters if whole else None,
        first.majority.get(first.main_metric),
    )


def tables(models: Sequence[Smaller]) -> Iterator[Table]:
    """Return for every model that lost layers what is left of its scores, and how many layers can go."""
    for origin in dict.fromkeys(model.origin for model in models):
        own = [model for model in models if model.origin == origin]
        yield _scores(origin, own)
        yield _within(origin, own)
    yield _reported_means()
    yield _reported_within()


def _tasks(models: Iterable[Smaller]) -> list[tuple[str, str]]:
    return sorted({(model.task, model.metric) for model in models})


def _titles(tasks: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{TASK_NAMES.get(task, task)}, {metric}" for task, metric in tasks]


def _scores(origin: str, models: Sequence[Smaller]) -> Table:
    tasks = _tasks(models)
    whole = {(model.task, model.metric): model for model in models if model.full is not None}
    full_row = [_summary(whole[task].full) if task in whole else "**missing**" for task in tasks]
    full_size = next((model.full_parameters for model in whole.values()), None)
    rows = [("majority class", NONE, NONE, NONE, *(_majority(task, models) for task in tasks))]
    rows.append(("all layers", "0", NONE, _megabytes(full_size), *full_row))
    lines: dict[tuple[str, tuple[int, ...]], list[Smaller]] = defaultdict(list)
    for model in models:
        lines[model.how, tuple(model.dropped.kept_layers)].append(model)
    for (how, kept), group in lines.items():
        gone = [str(i) for i in range(1, group[0].dropped.num_layers + 1) if i not in kept]
        cells = [_cell([each for each in group if (each.task, each.metric) == task]) for task in tasks]
        rows.append((how, str(len(gone)), ", ".join(gone), _megabytes(group[0].parameters), *cells))
    notes = (
        "mean ± standard deviation over n seeds of the best step on the development set; in brackets the "
        "points against all layers by the same recipe where that was run.",
        "Layers are counted from 1, the lowest; MB are of the float32 model.",
    )
    columns = ("strategy", "K", "layers dropped", "MB", *_titles(tasks))
    return Table(f"What is left of {origin}", columns, tuple(rows), notes)


def _cell(found: Sequence[Smaller]) -> str:
    """Return the scores of one model on a task, several where there are several recipes."""
    texts = []
    for model in found:
        lost = "" if model.points is None else f" ({-model.points:+.1f})"
        texts.append(_summary(model.score) + lost)
    return "; ".join(texts) or NONE


def _summary(summary: Summary | None) -> str:
    if summary is None:
        return NONE
    spread = "" if summary.sd is None else f" ± {summary.sd:.3f}"
    return f"{summary.mean:.3f}{spread}, n={summary.n}"


def _majority(task: tuple[str, str], models: Sequence[Smaller]) -> str:
    values = [model.majority for model in models if (model.task, model.metric) == task]
    return f"{values[0]:.3f}" if values[0] is not None else NONE


def _megabytes(parameters: int | None) -> str:
    return NONE if parameters is None else f"{4 * parameters / 1e6:.1f}"


def most_within(models: Sequence[Smaller], points: float) -> int:
    """Return the most layers that went for at most so many points."""
    return max(
        (
            model.dropped.num_dropped
            for model in models
            if model.points is not None and model.points <= points + 1e-9
        ),
        default=0,
    )


def _within(origin: str, models: Sequence[Smaller]) -> Table:
    tasks = _tasks(models)
    rows = []
    for how in dict.fromkeys(model.how for model in models):
        own = [model for model in models if model.how == how]
        measured = sorted({model.dropped.num_dropped for model in own})
        cells = []
        for task in tasks:
            group = [model for model in own if (model.task, model.metric) == task and model.full is not None]
            cells.append(" / ".join(str(most_within(group, points)) for points in POINTS) if group else NONE)
        rows.append((how, ", ".join(map(str, measured)), *cells))
    columns = ("strategy", "K measured", *_titles(tasks))
    return Table(f"How many layers of {origin} can go within 1 / 2 / 3 points", columns, tuple(rows))


def _reported_means() -> Table:
    drops = sorted({k for means in published.TOP_DROPPED.values() for k in means})
    rows = [
        (name, *(f"{means[k].value:.2f} [{means[k].mark}]" if k in means else NONE for k in drops))
        for name, means in published.TOP_DROPPED.items()
    ]
    columns = ("model", *(f"K = {k}" for k in drops))
    notes = ("Mean of 7 tasks of GLUE, without CoLA and WNLI, on their development sets.",)
    return Table("Reported by Poor Man's BERT (arXiv 2004.03844): top", columns, tuple(rows), notes)


def _reported_within() -> Table:
    cells = [
        " / ".join(str(round(figure.value)) for figure in figures) + f" [{figures[0].mark}]"
        for figures in published.TOP_DROPPABLE.values()
    ]
    columns = ("strategy", *(TASK_NAMES[task] for task in published.TOP_DROPPABLE))
    title = "Reported by Poor Man's BERT: how many of BERT's 12 layers can go within 1 / 2 / 3 points"
    return Table(title, columns, (("top", *cells),))


def records(models: Sequence[Smaller]) -> list[dict[str, object]]:
    """Return one record a smaller model and task, for CSV."""
    return [
        {
            "model": model.origin,
            "strategy": model.how,
            "num_dropped": model.dropped.num_dropped,
            "kept_layers": " ".join(map(str, model.dropped.kept_layers)),
            "task": model.task,
            "metric": model.metric,
            **model.score._asdict(),
            "full": model.full and model.full.mean,
            "points": model.points,
            "parameters": model.parameters,
        }
        for model in models
    ]
