"""From single runs to what a table prints: seeds summarized, recipes chosen, averages formed."""

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.record import Start
from eelbert_jax.reporting.pretraining import PretrainingRun
from eelbert_jax.reporting.published import SCORE_METRICS, TABLE_1_MODELS, TABLE_2_MODELS
from eelbert_jax.reporting.runs import FineTuningRun, Recipe
from eelbert_jax.reporting.text import tell_apart

Lookup = Callable[[str, str], float | None]
"""(task, metric) -> value, None where there is none."""


class Summary(NamedTuple):
    """Hold what several seeds gave; `sd` is the sample standard deviation, None of one seed."""

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
    """Hold the seeds of one model on one task by one recipe."""

    recipe: Recipe
    runs: tuple[FineTuningRun, ...]

    def summary(self, metric: str) -> Summary | None:
        """Return what the seeds gave; None where a run did not record the metric."""
        return self._of_all([run.result.metrics for run in self.runs], metric)

    def test_summary(self, metric: str) -> Summary | None:
        """Return the same of a labelled test file; None where there was none."""
        return self._of_all([run.result.test_metrics for run in self.runs], metric)

    def _of_all(self, figures: Sequence[Mapping[str, float]], metric: str) -> Summary | None:
        values = [found[metric] for found in figures if metric in found]
        return summarize(values) if len(values) == len(self.runs) else None

    @property
    def official(self) -> bool:
        """Whether the split is GLUE's."""
        return self.runs[0].result.official

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics recorded, the one that selected the best step first."""
        return tuple(self.runs[0].result.metrics)

    @property
    def num_degenerate(self) -> int:
        """How many seeds ended with one class for all examples."""
        return sum(run.result.degenerate for run in self.runs)


@dataclasses.dataclass(frozen=True)
class Model:
    """Hold a model with all its tasks; without size and embedding it is a baseline that is no BERT.

    `label` is unique in a report; `name` is the paper's, None of a variant that the paper does not have.
    """

    label: str
    name: str | None
    size: str | None
    embedding: str | None
    parameters: int
    start: Start | None
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
    """Hold a mean over tasks; `value` is over those present and None where there is none."""

    value: float | None
    present: tuple[str, ...]
    missing: tuple[str, ...]


def average(lookup: Lookup, tasks: Iterable[str]) -> Average:
    """Average as the paper does (EELBERT, section 4): MNLI counts once, as the mean of its two sets."""
    scores = {task: _task_score(lookup, task) for task in tasks}
    present = {task: score for task, score in scores.items() if score is not None}
    value = statistics.fmean(present.values()) if present else None
    return Average(value, tuple(present), tuple(task for task in scores if task not in present))


def _task_score(lookup: Lookup, task: str) -> float | None:
    values = [lookup(task, metric) for metric in SCORE_METRICS[task]]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


class Scores(NamedTuple):
    """Hold the models of a report: BERTs in the paper's order, and what needs no BERT."""

    models: tuple[Model, ...]
    baselines: tuple[Model, ...]
    majority: Mapping[tuple[str, str], float]

    @property
    def everyone(self) -> tuple[Model, ...]:
        """The baselines, then the BERTs."""
        return (*self.baselines, *self.models)

    def majority_of(self, task: str, metric: str) -> float | None:
        """Return the figure of always giving the most frequent label; a `Lookup`."""
        return self.majority.get((task, metric))


def collect(runs: Sequence[FineTuningRun], pretraining: Sequence[PretrainingRun]) -> Scores:
    """Group runs into models: those of one name that started from one checkpoint.

    `pretraining` are runs that checkpoints may come from, to tell variants of a hash apart.
    """
    _check_development_sets(runs)
    by_model: dict[tuple[str, str, int | None], list[FineTuningRun]] = defaultdict(list)
    for run in runs:
        start = run.start or Start("", None)
        by_model[run.result.model.name, start.workdir, start.step].append(run)
    changes = {run.path: run.changes for run in pretraining}
    found = [_model(group, changes) for group in by_model.values()]
    labels = tell_apart([_labels(model) for model in found])
    models = [dataclasses.replace(model, label=label) for model, label in zip(found, labels, strict=True)]
    order = (*TABLE_1_MODELS, *TABLE_2_MODELS)
    models.sort(key=lambda m: (order.index(m.name) if m.name in order else len(order), m.label))
    majority = {
        (task, metric): value
        for model in models
        for task, experiment in model.chosen.items()
        for metric, value in experiment.runs[0].result.majority.items()
    }
    berts = tuple(model for model in models if model.embedding is not None)
    return Scores(berts, tuple(model for model in models if model.embedding is None), majority)


def _labels(model: Model) -> tuple[str, ...]:
    start = model.start
    if start is None:
        return (model.label,)
    return (
        model.label,
        f"{model.label} ({Path(start.workdir).name})",
        f"{model.label} ({start.workdir} @ {start.step})",
    )


def _check_development_sets(runs: Sequence[FineTuningRun]) -> None:
    first: dict[str, FineTuningRun] = {}
    for run in runs:
        other = first.setdefault(run.task, run)
        if other.num_dev != run.num_dev:
            raise UserError(
                f"{other.folder} and {run.folder} measured {run.task} on different development sets, "
                f"{other.num_dev} and {run.num_dev} examples; report them apart."
            )


def _model(runs: Sequence[FineTuningRun], changes: Mapping[Path, tuple[str, ...]]) -> Model:
    start, model = runs[0].start, runs[0].result.model
    changed = () if start is None else changes.get(store.folder(start.workdir).resolve(), ())
    by_task: dict[str, dict[Recipe, list[FineTuningRun]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        by_task[run.task][run.recipe].append(run)
    tried = {
        task: tuple(experiment(recipe, group) for recipe, group in sorted(by_recipe.items()))
        for task, by_recipe in sorted(by_task.items())
    }
    return Model(
        label=", ".join([model.name, *changed]),
        name=None if changed else model.name,
        size=model.size,
        embedding=model.embedding,
        parameters=model.parameters,
        start=start,
        chosen={task: choose(experiments) for task, experiments in tried.items()},
        tried=tried,
    )


def experiment(recipe: Recipe, runs: Sequence[FineTuningRun]) -> Experiment:
    """Return the experiment of some runs; the same seed twice is a `UserError`."""
    by_seed: dict[int, FineTuningRun] = {}
    for run in runs:
        other = by_seed.setdefault(run.result.seed, run)
        if other is not run:
            raise UserError(
                f"{other.folder} and {run.folder} are the same seed ({run.result.seed}) of "
                f"{run.result.model.name} on {run.task} by the same recipe; a seed counts once, so leave one "
                "of them out of --runs."
            )
    return Experiment(recipe, tuple(by_seed[seed] for seed in sorted(by_seed)))


def choose(experiments: Sequence[Experiment]) -> Experiment:
    """Return the recipe with the most seeds, of several the best mean: one lucky run does not beat many.

    Chosen on the set that is reported, as the best of a grid always is; tables say how many were tried.
    """

    def rank(experiment: Experiment) -> tuple[int, float]:
        summary = experiment.summary(experiment.metrics[0])
        return len(experiment.runs), float("-inf") if summary is None else summary.mean

    return max(experiments, key=rank)
