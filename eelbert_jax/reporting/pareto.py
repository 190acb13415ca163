"""Bytes against score: which models of a task no other beats in both."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from eelbert_jax.reporting.plots import DPI
from eelbert_jax.reporting.text import Table, number


@dataclasses.dataclass(frozen=True)
class Point:
    """Hold a model with its weights kept in one way: `num_bytes` of them, and its main score."""

    task: str
    metric: str
    run: str
    model: str
    weights: str
    num_bytes: int
    score: float


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats, by size: each is the best of its size or less."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.num_bytes, -point.score)):
        if not best or point.score > best[-1].score:
            best.append(point)
    return best


def pareto_table(points: Sequence[Point]) -> Table:
    """Return the points of one task by size; those of the front are marked."""
    on_front = set(front(points))
    rows = tuple(
        (
            point.model,
            point.run,
            point.weights,
            f"{point.num_bytes / 1e6:.3f}",
            number(point.score, 4),
            "*" if point in on_front else "",
        )
        for point in sorted(points, key=lambda point: (point.num_bytes, point.run))
    )
    columns = ("model", "run", "weights", "MB", points[0].metric, "front")
    return Table(points[0].task, columns, rows, ("front: no smaller or equal model scores as much.",))


def plot_pareto(by_task: Sequence[Sequence[Point]], path: Path) -> None:
    """Draw a panel a task: every point, by its weights, and the front."""
    figure = Figure(figsize=(5.5 * len(by_task), 4.5), layout="constrained")
    for axes, points in zip(figure.subplots(1, len(by_task), squeeze=False)[0], by_task, strict=True):
        for weights in dict.fromkeys(point.weights for point in points):
            drawn = [point for point in points if point.weights == weights]
            axes.plot([p.num_bytes / 1e6 for p in drawn], [p.score for p in drawn], "o", label=weights)
        best = front(points)
        axes.step([p.num_bytes / 1e6 for p in best], [p.score for p in best], "k-", where="post", linewidth=1)
        for point in best:
            place = point.num_bytes / 1e6, point.score
            axes.annotate(point.model, place, fontsize="x-small", xytext=(4, -9), textcoords="offset points")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")  # the default's powers are formulas, which `plots` writes out
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("MB of weights")
        axes.set_ylabel(f"{points[0].metric} on the development set")
        axes.set_title(points[0].task, fontsize="small")
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=DPI)
