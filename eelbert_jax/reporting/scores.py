"""From single runs to what a table prints: seeds summarized, recipes chosen, averages formed.

Knows no layout. A figure that is not there stays missing: nothing here invents one.
"""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eelbert_jax.errors import UserError
from eelbert_jax.reporting.published import SCORE_METRICS
from eelbert_jax.reporting.runs import Checkpoint, FineTuningRun, PretrainingRun, Recipe

Lookup = Callable[[str, str], float | None]
"""(task, metric) -> value, None where there is none."""


class Summary(NamedTuple):
    """What several seeds gave; `sd` is the sample standard deviation, None of one seed."""

    mean: float
    sd: float | None
    median: float
    n: int


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one value."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), sd, statistics.median(values), len(values))


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The seeds of one model on one task by one recipe."""

    recipe: Recipe
    runs: tuple[FineTuningRun, ...]

    def summary(self, metric: str) -> Summary | None:
        """Return what the seeds gave; None where a run did not record the metric."""
        values = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        return summarize(values) if len(values) == len(self.runs) else None

    @property
    def main_metric(self) -> str:
        """The metric that selected the best step, which is the first that a run records."""
        return next(iter(self.runs[0].metrics))

    @property
    def num_degenerate(self) -> int:
        """How many seeds ended with one class for all examples."""
        return sum(run.degenerate for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model with all its tasks.

    Attributes:
      label: what the columns call it, unique in a report.
      variant: the label without what tells checkpoints of one kind apart.
      name: as the paper's tables name models; None where it is a variant that the paper does not have.
      size: encoder size; None for a baseline that is no BERT.
      embedding: kind of token embedder; None for such a baseline.
      parameters: trained numbers, 2-class convention.
      checkpoint: where it started; None: from scratch.
      chosen: task -> the experiment that the tables show.
      tried: task -> all experiments.
    """

    label: str
    variant: str
    name: str | None
    size: str | None
    embedding: str | None
    parameters: int
    checkpoint: Checkpoint | None
    chosen: Mapping[str, Experiment]
    tried: Mapping[str, tuple[Experiment, ...]]

    def summary(self, task: str, metric: str) -> Summary | None:
        """Return what the seeds of the shown experiment gave."""
        return self.chosen[task].summary(metric) if task in self.chosen else None

    def mean(self, task: str, metric: str) -> float | None:
        """Return the mean over seeds."""
        summary = self.summary(task, metric)
        return None if summary is None else summary.mean

    def median(self, task: str, metric: str) -> float | None:
        """Return the median over seeds, the paper's figure."""
        summary = self.summary(task, metric)
        return None if summary is None else summary.median


class Average(NamedTuple):
    """A mean over tasks; `value` is over those present and None where there is none."""

    value: float | None
    present: tuple[str, ...]
    missing: tuple[str, ...]


def average(lookup: Lookup, tasks: Iterable[str]) -> Average:
    """Average over tasks as the paper does: MNLI counts once, as the mean of matched and mismatched.

    Source: EELBERT, section 4.

    Args:
      lookup: the figures.
      tasks: keys of `SCORE_METRICS`.
    """
    scores = {task: task_score(lookup, task) for task in tasks}
    present = {task: score for task, score in scores.items() if score is not None}
    value = statistics.fmean(present.values()) if present else None
    return Average(value, tuple(present), tuple(task for task in scores if task not in present))


def task_score(lookup: Lookup, task: str) -> float | None:
    """Return a task's share of an average, None where a metric of it is missing."""
    values = [lookup(task, metric) for metric in SCORE_METRICS[task]]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def collect(runs: Sequence[FineTuningRun], pretraining: Sequence[PretrainingRun]) -> list[Model]:
    """Group runs into models: those of one name that started from one checkpoint.

    Args:
      runs: finished fine-tuning runs.
      pretraining: where their checkpoints may come from, to tell variants of a hash apart.

    Raises:
      UserError: a task was measured on different development sets, or a seed is there twice.
    """
    _check_development_sets(runs)
    by_model: dict[tuple[str, str | None, int | None], list[FineTuningRun]] = defaultdict(list)
    for run in runs:
        start = run.checkpoint
        by_model[run.model_name, start and start.workdir, start and start.step].append(run)
    changes = {run.path: run.changes for run in pretraining}
    models = [_model(group, changes) for group in by_model.values()]
    return _with_unique_labels(models)


def _check_development_sets(runs: Sequence[FineTuningRun]) -> None:
    """Refuse to put figures side by side that were measured on different examples."""
    first: dict[str, FineTuningRun] = {}
    for run in runs:
        other = first.setdefault(run.task, run)
        if other.num_dev != run.num_dev:
            raise UserError(
                f"{other.folder} and {run.folder} measured {run.task} on different development sets, "
                f"{dict(other.num_dev)} and {dict(run.num_dev)} examples; report them apart."
            )


def _model(runs: Sequence[FineTuningRun], changes: Mapping[Path, tuple[str, ...]]) -> Model:
    """Return the model whose runs these are."""
    first = runs[0]
    changed: tuple[str, ...] = ()
    if first.checkpoint is not None:
        path = Path(first.checkpoint.workdir).resolve()
        changed = changes.get(path, ())
    by_task: dict[str, dict[Recipe, list[FineTuningRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_task[run.task][run.recipe].append(run)
    tried = {
        task: tuple(_experiment(recipe, group) for recipe, group in sorted(by_recipe.items()))
        for task, by_recipe in sorted(by_task.items())
    }
    label = ", ".join([first.model_name, *changed])
    return Model(
        label=label,
        variant=label,
        name=None if changed else first.model_name,
        size=first.size,
        embedding=first.embedding,
        parameters=first.parameters,
        checkpoint=first.checkpoint,
        chosen={task: choose(experiments) for task, experiments in tried.items()},
        tried=tried,
    )


def _experiment(recipe: Recipe, runs: Sequence[FineTuningRun]) -> Experiment:
    """Return the experiment; a seed counts once."""
    by_seed: dict[int, FineTuningRun] = {}
    for run in runs:
        other = by_seed.setdefault(run.seed, run)
        if other is not run:
            raise UserError(
                f"{other.folder} and {run.folder} are the same seed ({run.seed}) of {run.model_name} on "
                f"{run.task} by the same recipe; a seed counts once, so leave one of them out of --runs."
            )
    return Experiment(recipe, tuple(by_seed[seed] for seed in sorted(by_seed)))


def choose(experiments: Sequence[Experiment]) -> Experiment:
    """Return the recipe to show: of those with the most seeds, the one with the best mean.

    Seeds come first, so that one lucky run of a grid does not beat the mean of several. Chosen on the set
    that is reported, as the best of a grid always is; tables say how many were tried. Source: ours.
    """

    def rank(experiment: Experiment) -> tuple[int, float]:
        summary = experiment.summary(experiment.main_metric)
        return len(experiment.runs), float("-inf") if summary is None else summary.mean

    return max(experiments, key=rank)


def _with_unique_labels(models: Sequence[Model]) -> list[Model]:
    """Tell models of one label apart by their checkpoint's folder, or where that is the same by its path."""
    for name_of in (lambda start: Path(start.workdir).name, lambda start: f"{start.workdir} @ {start.step}"):
        labels = [model.label for model in models]
        models = [
            model
            if labels.count(model.label) == 1 or model.checkpoint is None
            else dataclasses.replace(model, label=f"{model.label} ({name_of(model.checkpoint)})")
            for model in models
        ]
    return list(models)
