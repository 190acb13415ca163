"""The pictures of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from eelbert_jax.reporting import published
from eelbert_jax.reporting.glue_tables import Baselines
from eelbert_jax.reporting.pretraining_tables import Unigram, labels
from eelbert_jax.reporting.published import MEASURES
from eelbert_jax.reporting.runs import PretrainingRun
from eelbert_jax.reporting.scores import Model

DPI = 120


def plot_curves(
    runs: Sequence[PretrainingRun], baselines: Mapping[tuple[str, int | None], Unigram], path: Path
) -> None:
    """Draw held-out loss and accuracy of all runs, each baseline as a line.

    Over tokens where the length of every run's rows is known, else over steps. The untrained model is left
    out of the range of the axes: it is far off, and says nothing.
    """
    in_tokens = all(run.row_length is not None for run in runs)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name, ylabel in (
        (panels[0], "loss", "held-out masked-LM loss (nats a target)"),
        (panels[1], "accuracy", "held-out masked-LM accuracy"),
    ):
        shown: list[float] = []
        for run, label in zip(runs, labels(runs), strict=True):
            tokens = [run.tokens_at(point.step) for point in run.curve]
            x = [t / 1e6 for t in tokens if t is not None] if in_tokens else [p.step for p in run.curve]
            values = [getattr(point, name) for point in run.curve]
            axes.plot(x, values, "o-", markersize=3, label=label)
            shown += [value for value, point in zip(values, run.curve, strict=True) if point.step] or values
        for key, baseline in baselines.items():
            value = baseline.entropy if name == "loss" else baseline.accuracy
            label = "unigram" if len(baselines) == 1 else f"unigram ({Path(key[0]).name})"
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


def plot_scores(models: Sequence[Model], baselines: Baselines, path: Path) -> None:
    """Draw every model's mean and standard deviation on every measure, what it has to beat, what is reported.

    Hollow marks are reported figures; unverified ones, marked `r`, are not drawn.
    """
    measures = [
        measure
        for measure in MEASURES
        if any(
            model.summary(measure.task, measure.metric) is not None for model in models or baselines.models
        )
    ]
    keys = [(measure.task, measure.metric) for measure in measures]
    everyone = [*baselines.models, *models]
    figure = Figure(figsize=(max(6.0, 1.1 * len(keys) + 3), 4.8), layout="constrained")
    axes = figure.subplots()
    for number, model in enumerate(everyone):
        shift = (number + 1) / (len(everyone) + 1) - 0.5
        points = [(i + shift, model.summary(*key)) for i, key in enumerate(keys)]
        known = [(x, summary) for x, summary in points if summary is not None]
        lines = axes.errorbar(
            [x for x, _ in known],
            [summary.mean for _, summary in known],
            [summary.sd or 0.0 for _, summary in known],
            fmt="o",
            markersize=4,
            label=model.label,
        )
        reported = [(i + shift, published.score(model.name, *key)) for i, key in enumerate(keys)]
        drawn = [(x, value.value) for x, value in reported if value is not None and value.mark != "r"]
        color = lines[0].get_color()
        axes.plot([x for x, _ in drawn], [y for _, y in drawn], "D", markerfacecolor="none", color=color)
    known_majority = [(i, baselines.majority_of(*key)) for i, key in enumerate(keys)]
    to_beat = [(i, value) for i, value in known_majority if value is not None]
    if to_beat:
        places, values = zip(*to_beat, strict=True)
        ends = [i - 0.45 for i in places], [i + 0.45 for i in places]
        axes.hlines(values, *ends, color="black", linestyle="--", linewidth=1, label="majority class")
    axes.set_xticks(range(len(keys)), [measure.label for measure in measures], rotation=35, ha="right")
    axes.set_ylabel("score on the development set")
    axes.set_title("filled: measured here, mean ± sd; hollow: reported", fontsize="small")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=DPI)
