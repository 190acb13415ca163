"""The pictures of a report."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eelbert_jax.reporting import published
from eelbert_jax.reporting.dropping import Smaller
from eelbert_jax.reporting.pretraining import Evaluated, PretrainingRun, Unigram, baseline_names, labels
from eelbert_jax.reporting.published import MEASURES, Measure
from eelbert_jax.reporting.scores import Model, Scores
from eelbert_jax.reporting.tables import unofficial_measures

matplotlib.rcParams["text.parse_math"] = False  # a dollar in a file's name begins no formula

DPI = 120
PANELS_A_ROW = 3


def plot_curves(runs: Sequence[PretrainingRun], baselines: Mapping[Evaluated, Unigram], path: Path) -> None:
    """Draw held-out loss and accuracy of all runs over tokens, or steps where a row length is unknown."""
    in_tokens = all(run.row_length is not None for run in runs)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name, ylabel in (
        (panels[0], "loss", "held-out masked-LM loss (nats a target)"),
        (panels[1], "accuracy", "held-out masked-LM accuracy"),
    ):
        shown = _draw_curves(axes, runs, name, in_tokens)
        for where, baseline in zip(baseline_names(baselines), baselines.values(), strict=True):
            value = baseline.entropy if name == "loss" else baseline.accuracy
            label = "unigram" if len(baselines) == 1 else f"unigram ({where})"
            axes.axhline(value, color="black", linestyle="--", linewidth=1, label=label)
            shown.append(value)
        if shown:
            margin = 0.05 * (max(shown) - min(shown)) or 0.05
            axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_xlabel("tokens (millions)" if in_tokens else "step")
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=DPI)


def _draw_curves(axes: Axes, runs: Sequence[PretrainingRun], name: str, in_tokens: bool) -> list[float]:
    """Draw a curve a run, and return the values the axes have to show: the untrained model is far off."""
    shown: list[float] = []
    for run, label in zip(runs, labels(runs), strict=True):
        tokens = [run.tokens_at(point.step) for point in run.curve]
        x = [t / 1e6 for t in tokens if t is not None] if in_tokens else [p.step for p in run.curve]
        values = [getattr(point, name) for point in run.curve]
        axes.plot(x, values, "o-", markersize=3, label=label)
        shown += [value for value, point in zip(values, run.curve, strict=True) if point.step] or values
    return shown


def plot_scores(scores: Scores, path: Path) -> bool:
    """Draw every model on every measure of GLUE, reported figures hollow; return whether there is one.

    Unverified figures, marked `r`, are not drawn.
    """
    measures = [*MEASURES, *(Measure(*key, ", ".join(key)) for key in unofficial_measures(scores))]
    models = scores.models or scores.baselines
    measures = [m for m in measures if any(model.summary(m.task, m.metric) is not None for model in models)]
    if not measures:
        return False
    figure = Figure(figsize=(max(6.0, 1.1 * len(measures) + 3), 4.8), layout="constrained")
    axes = figure.subplots()
    _draw_scores(axes, scores.everyone, measures, scores)
    axes.set_ylabel("score on the development set")
    axes.set_title("filled: measured here, mean ± sd; hollow: reported", fontsize="small")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=DPI)
    return True


def plot_own_tasks(scores: Scores, path: Path) -> None:
    """Draw a panel for each task of users' own files: every model's mean and standard deviation."""
    tasks = sorted({task for model in scores.everyone for task in model.chosen})
    rows, columns = math.ceil(len(tasks) / PANELS_A_ROW), min(len(tasks), PANELS_A_ROW)
    figure = Figure(figsize=(3.6 * columns + 2.5, 3.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, task in zip(panels, tasks, strict=False):
        models = [model for model in scores.everyone if task in model.chosen]
        metrics = dict.fromkeys(name for model in models for name in model.chosen[task].metrics)
        _draw_scores(axes, scores.everyone, [Measure(task, name, name) for name in metrics], scores)
        axes.set_title(task, fontsize="small")
    for axes in panels[len(tasks) :]:
        axes.remove()
    marks: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        marks |= dict(zip(names, handles, strict=True))
    figure.legend(list(marks.values()), list(marks), fontsize="small", loc="outside right center")
    figure.savefig(path, dpi=DPI)


def plot_dropping(models: Sequence[Smaller], path: Path) -> None:
    """Draw a panel for each model and task: the score of every strategy over K, all from the full model's."""
    panels = list(dict.fromkeys((model.origin, model.task, model.metric) for model in models))
    rows, columns = math.ceil(len(panels) / PANELS_A_ROW), min(len(panels), PANELS_A_ROW)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), layout="constrained")
    drawn = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (origin, task, metric) in zip(drawn, panels, strict=False):
        own = [
            model for model in models if (model.origin, model.task, model.metric) == (origin, task, metric)
        ]
        for number, how in enumerate(dict.fromkeys(model.how for model in models)):
            points = [(m.dropped.num_dropped, m.score.mean, m.score.sd or 0.0) for m in own if m.how == how]
            full = next((model.full for model in own if model.how == how and model.full), None)
            points = ([(0, full.mean, full.sd or 0.0)] if full else []) + sorted(points)
            if points:
                marks = {
                    "color": f"C{number % 10}",
                    "marker": "o",
                    "markersize": 4,
                    "capsize": 2,
                    "label": how,
                }
                axes.errorbar(*zip(*points, strict=True), **marks)
        if own[0].majority is not None:
            axes.axhline(own[0].majority, color="black", linestyle="--", linewidth=1, label="majority class")
        axes.set_xticks(sorted({0, *(model.dropped.num_dropped for model in own)}))
        axes.set_xlabel("layers dropped")
        axes.set_ylabel(metric)
        axes.set_title(f"{Path(origin).name}: {task}", fontsize="small")
        axes.grid(alpha=0.3)
    for axes in drawn[len(panels) :]:
        axes.remove()
    drawn[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=DPI)


def _draw_scores(axes: Axes, models: Sequence[Model], measures: Sequence[Measure], scores: Scores) -> None:
    keys = [(measure.task, measure.metric) for measure in measures]
    for number, model in enumerate(models):
        shift, color = (number + 1) / (len(models) + 1) - 0.5, f"C{number % 10}"
        known = [(i + shift, s) for i, key in enumerate(keys) if (s := model.summary(*key)) is not None]
        if known:
            x, means = [x for x, _ in known], [summary.mean for _, summary in known]
            sds = [summary.sd or 0.0 for _, summary in known]
            axes.errorbar(x, means, sds, fmt="o", markersize=4, color=color, label=model.label)
        reported = [(i + shift, published.score(model.name, *key)) for i, key in enumerate(keys)]
        drawn = [(x, value.value) for x, value in reported if value is not None and value.mark != "r"]
        axes.plot([x for x, _ in drawn], [y for _, y in drawn], "D", markerfacecolor="none", color=color)
    to_beat = [(i, value) for i, key in enumerate(keys) if (value := scores.majority_of(*key)) is not None]
    if to_beat:
        places, values = zip(*to_beat, strict=True)
        ends = [i - 0.45 for i in places], [i + 0.45 for i in places]
        axes.hlines(values, *ends, color="black", linestyle="--", linewidth=1, label="majority class")
    axes.set_xticks(range(len(keys)), [measure.label for measure in measures], rotation=35, ha="right")
    axes.grid(axis="y", alpha=0.3)
