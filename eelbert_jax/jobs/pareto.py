"""`eelbert pareto`: runs in; size and score of each, with weights kept in every way, out.

A fine-tuned run is scored as it was, a distilled sentence encoder by Spearman's correlation of its cosines
with people's numbers on STS-B dev.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import config_dict

from eelbert_jax import cli
from eelbert_jax.compress.quantize import WEIGHTS, dequantize, num_bytes, with_weights
from eelbert_jax.config_files import load_config
from eelbert_jax.datasets.glue import Examples, load_examples
from eelbert_jax.datasets.splits import find_glue_dir
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.evaluate import similarity
from eelbert_jax.jobs.finetune import set_up
from eelbert_jax.model.config import name_of
from eelbert_jax.record import Result
from eelbert_jax.reporting.pareto import Point, pareto_table, plot_pareto
from eelbert_jax.reporting.runs import split_paths
from eelbert_jax.reporting.text import csv_text, markdown, tell_apart
from eelbert_jax.workdir import (
    BEST_NAME,
    CONFIG_NAME,
    FIGURES_NAME,
    PARETO_NAME,
    RESULT_NAME,
    make_writable,
    read_json,
    write_whole,
)


def pareto(runs: str, workdir: str | Path) -> list[Point]:
    """Score every run under some folders with its weights kept in every way; write table, CSV and picture."""
    folder = Path(workdir).expanduser()
    make_writable(folder)
    roots = split_paths(runs, "--runs")
    found = {
        file.parent: score
        for name, score in ((RESULT_NAME, _finetuned), (FIGURES_NAME, _distilled))
        for root in roots
        for file in sorted(root.rglob(name))
        if name == FIGURES_NAME or (file.parent / BEST_NAME).is_dir()
    }
    if not found:
        raise UserError(
            f"No run to score under {runs}: expected folders with {RESULT_NAME} and {BEST_NAME}/ of "
            f"fine-tunings, or with {FIGURES_NAME} of distillations."
        )
    names = tell_apart([("/".join(path.parts[-2:]), str(path)) for path in found])
    points = [
        point
        for (path, score), name in zip(found.items(), names, strict=True)
        for point in _points(score(path), name)
    ]
    points.sort(key=lambda point: (point.task, point.num_bytes))
    by_task = [list(group) for _, group in itertools.groupby(points, key=lambda point: point.task)]
    text = "\n".join(markdown(pareto_table(group)) for group in by_task)
    write_whole(folder / f"{PARETO_NAME}.md", text)
    write_whole(folder / f"{PARETO_NAME}.csv", csv_text([dataclasses.asdict(point) for point in points]))
    plot_pareto(by_task, folder / f"{PARETO_NAME}.png")
    print(text)
    return points


class _Scored(NamedTuple):
    """Hold a run's model, and what gives parameters like its own their score."""

    task: str
    metric: str
    model_name: str
    params: Any
    score: Callable[[Any], float]


def _points(run: _Scored, name: str) -> Iterator[Point]:
    for weights in WEIGHTS:
        params = with_weights(run.params, weights)
        score = float(run.score(dequantize(params)))
        yield Point(run.task, run.metric, name, run.model_name, weights, num_bytes(params), score)


def _finetuned(path: Path) -> _Scored:
    result = Result.read(path / RESULT_NAME)
    objective, model, _ = set_up(_evaluation(path))
    assert model is not None
    split = objective.data.dev[result.split]

    def score(params: Any) -> float:
        return objective.score(params, split).scores[result.main_metric]

    return _Scored(result.task, result.main_metric, result.model.name, model.params, score)


def _distilled(path: Path) -> _Scored:
    model, metric = load(path, encoder_only=True), "spearman"

    def score(params: Any) -> float:
        return similarity(model.with_params(params).encode, _stsb())[metric]

    return _Scored("stsb, cosines", metric, name_of(model.config), model.params, score)


@functools.cache
def _stsb() -> Examples:
    found = load_examples(find_task("stsb"), "dev", glue_dir=find_glue_dir(None))
    assert isinstance(found, Examples)
    return found


def _evaluation(path: Path) -> config_dict.ConfigDict:
    """Return the config of a run, to evaluate it; what it does not have yet is at its default.

    What it learned from a teacher is not asked again.
    """
    settings = {name: value for name, value in read_json(path / CONFIG_NAME).items() if name != "teacher"}
    config = load_config(f"configs/glue.py:{settings['size']},task={settings['task']}")
    with config.unlocked():
        config.update(settings)
    config.pretrained, config.num_epochs = str(path), 0
    return config


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    _, workdir, flags = cli.parse("pareto", argv)
    if not flags["runs"]:
        raise UserError("pareto needs runs: add --runs=DIR.")
    pareto(flags["runs"], workdir)
