"""`eelbert pareto`: fine-tuned runs in; size and score of each, with weights kept in every way, out."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

from ml_collections import config_dict

from eelbert_jax import cli
from eelbert_jax.compress.quantize import WEIGHTS, dequantize, num_bytes, with_weights
from eelbert_jax.config_files import load_config
from eelbert_jax.errors import UserError
from eelbert_jax.jobs.finetune import set_up
from eelbert_jax.record import Result
from eelbert_jax.reporting.pareto import Point, pareto_table, plot_pareto
from eelbert_jax.reporting.runs import split_paths
from eelbert_jax.reporting.text import csv_text, markdown, tell_apart
from eelbert_jax.workdir import (
    BEST_NAME,
    CONFIG_NAME,
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
    found = sorted({file.parent for root in split_paths(runs, "--runs") for file in root.rglob(RESULT_NAME)})
    found = [path for path in found if (path / BEST_NAME).is_dir()]
    if not found:
        raise UserError(
            f"No fine-tuned run under {runs}: expected folders with {RESULT_NAME} and {BEST_NAME}/."
        )
    names = tell_apart([("/".join(path.parts[-2:]), str(path)) for path in found])
    points = [point for path, name in zip(found, names, strict=True) for point in _points(path, name)]
    points.sort(key=lambda point: (point.task, point.num_bytes))
    by_task = [list(group) for _, group in itertools.groupby(points, key=lambda point: point.task)]
    text = "\n".join(markdown(pareto_table(group)) for group in by_task)
    write_whole(folder / f"{PARETO_NAME}.md", text)
    write_whole(folder / f"{PARETO_NAME}.csv", csv_text([dataclasses.asdict(point) for point in points]))
    plot_pareto(by_task, folder / f"{PARETO_NAME}.png")
    print(text)
    return points


def _points(path: Path, name: str) -> Iterator[Point]:
    result = Result.read(path / RESULT_NAME)
    objective, model, _ = set_up(_evaluation(path))
    assert model is not None
    for weights in WEIGHTS:
        params = with_weights(model.params, weights)
        split = objective.data.dev[result.split]
        score = objective.score(dequantize(params), split).scores[result.main_metric]
        size = num_bytes(params)
        yield Point(result.task, result.main_metric, name, result.model.name, weights, size, float(score))


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
        raise UserError("pareto needs fine-tuned runs: add --runs=DIR.")
    pareto(flags["runs"], workdir)
