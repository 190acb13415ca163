"""`eelbert evaluate`: do the cosines of a model's sentence vectors agree with people, without fine-tuning?"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import ml_collections

from eelbert_jax import cli
from eelbert_jax.datasets.baselines import tfidf_vectors
from eelbert_jax.datasets.glue import Examples
from eelbert_jax.datasets.metrics import scores
from eelbert_jax.datasets.splits import configured_task, find_glue_dir, read_splits
from eelbert_jax.datasets.tasks import REGRESS
from eelbert_jax.datasets.typos import read_misspellings
from eelbert_jax.errors import UserError, unknown
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.inference.suite import Vectors, cosines, run_suite
from eelbert_jax.reporting.text import Table, count, markdown, number

METRICS = ("spearman", "pearson")
SUITES = ("pairs", "sentences")


def evaluate(
    config: ml_collections.ConfigDict, models: Sequence[tuple[str, Model]]
) -> Iterator[dict[str, Any]]:
    """Yield the scores of TF-IDF, and of each model, on the first development split of a task of pairs.

    Raises:
      UserError: the task has no numbers for pairs of texts.
    """
    settings = config.to_dict()
    task = configured_task(settings)
    if task.kind != REGRESS or not task.reads_pairs:
        raise UserError(
            f"Cosines are compared with numbers for pairs of texts, and {task.name} has none: take "
            "--config=configs/glue.py:tiny,task=stsb, or a table of your own with --config.custom.regression."
        )
    _, splits = read_splits(settings)
    dev = next(found for split, found in splits.items() if split != "train")
    assert isinstance(dev, Examples)
    assert dev.second is not None
    of_words = tfidf_vectors((*dev.first, *dev.second))
    yield {"model": "TF-IDF", "parameters": None, **similarity(of_words, dev)}
    for name, model in models:
        yield {"model": name, "parameters": model.num_encoder_parameters, **similarity(model.encode, dev)}


def similarity(vectors_of: Vectors, pairs: Examples) -> dict[str, float]:
    """Return how the cosines of pairs of texts correlate with people's numbers."""
    assert pairs.second is not None
    return scores(METRICS, cosines(vectors_of(pairs.first), vectors_of(pairs.second)), pairs.labels)


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    config, _, flags = cli.parse("evaluate", argv)
    if flags["suite"] not in SUITES:
        raise unknown("suite", flags["suite"], SUITES)
    misspellings = None
    if flags["misspellings"]:
        if flags["suite"] != "sentences":
            raise UserError("--misspellings goes with --suite=sentences.")
        misspellings = read_misspellings(flags["misspellings"])
    models = [(name, load(name, encoder_only=True)) for name in flags["from"].split(",") if name]
    if flags["suite"] == "sentences":
        title = "Sentence vectors without fine-tuning"
        lines = list(run_suite(models, find_glue_dir(config.data.glue_dir), misspellings))
    else:
        title, lines = f"{config.task}: cosines of sentence vectors", list(evaluate(config, models))
    if flags["json"]:
        for line in lines:
            print(json.dumps(line))
        return
    rows = [
        (name, count(parameters), *map(number, scores))
        for name, parameters, *scores in map(dict.values, lines)
    ]
    print(markdown(Table(title, tuple(lines[0]), tuple(rows))))
