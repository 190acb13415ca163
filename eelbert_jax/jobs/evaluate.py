"""`eelbert evaluate`: do the cosines of a model's sentence vectors agree with people, without fine-tuning?"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.datasets.baselines import tfidf_cosines
from eelbert_jax.datasets.glue import Examples
from eelbert_jax.datasets.metrics import scores
from eelbert_jax.datasets.splits import read_splits
from eelbert_jax.datasets.tasks import REGRESS
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.reporting.text import Table, count, markdown, number

METRICS = ("spearman", "pearson")


class Line(NamedTuple):
    """Hold the scores of a model; the fields are the keys of `--json`. Parameters are those that it reads."""

    model: str
    parameters: int | None
    spearman: float
    pearson: float


def evaluate(config: ml_collections.ConfigDict, models: Sequence[str]) -> Iterator[Line]:
    """Yield the scores of TF-IDF, and of each model, on the first development split of a task of pairs.

    Raises:
      UserError: a model cannot be loaded, or the task has no numbers for pairs of texts.
    """
    task, splits = read_splits(config.to_dict())
    if task.kind != REGRESS or not task.reads_pairs:
        raise UserError(
            f"Cosines are compared with numbers for pairs of texts, and {task.name} has none: take "
            "--config=configs/glue.py:tiny,task=stsb, or a table of your own with --config.custom.regression."
        )
    dev = next(found for split, found in splits.items() if split != "train")
    assert isinstance(dev, Examples)
    assert dev.second is not None
    yield Line("TF-IDF", None, **scores(METRICS, tfidf_cosines(dev.first, dev.second), dev.labels))
    for name in models:
        model = load(name, encoder_only=True)
        found = cosines(model.encode(dev.first), model.encode(dev.second))
        yield Line(name, num_parameters(model), **scores(METRICS, found, dev.labels))


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosines of vectors [n, S] each, [n]; 0 where one has no length."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.sum(first * second, axis=1) / np.where(lengths, lengths, 1)


def num_parameters(model: Model) -> int:
    """Return how many numbers a vector takes: those of the encoder, and of the projection if it has one."""
    parts = [model.params[name] for name in ("bert", "projection") if name in model.params]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parts))


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("evaluate", argv)
    lines = list(evaluate(invocation.config, [name for name in invocation.flags["from"].split(",") if name]))
    if invocation.flags["json"]:
        for line in lines:
            print(json.dumps(line._asdict()))
        return
    rows = [
        (line.model, count(line.parameters), number(line.spearman), number(line.pearson)) for line in lines
    ]
    print(
        markdown(Table(f"{invocation.config.task}: cosines of sentence vectors", Line._fields, tuple(rows)))
    )
