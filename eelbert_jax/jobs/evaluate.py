"""`eelbert evaluate`: do the cosines of a model's sentence vectors agree with people, without fine-tuning?"""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_collections

from eelbert_jax import cli
from eelbert_jax.datasets.baselines import tfidf_vectors
from eelbert_jax.datasets.glue import Examples
from eelbert_jax.datasets.metrics import scores
from eelbert_jax.datasets.splits import find_glue_dir, read_splits
from eelbert_jax.datasets.tasks import REGRESS
from eelbert_jax.errors import UserError, unknown
from eelbert_jax.inference import suite
from eelbert_jax.inference.load import load
from eelbert_jax.inference.suite import cosines
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
    of_words = tfidf_vectors((*dev.first, *dev.second))
    found = cosines(of_words(dev.first), of_words(dev.second))
    yield Line("TF-IDF", None, **scores(METRICS, found, dev.labels))
    for name in models:
        model = load(name, encoder_only=True)
        found = cosines(model.encode(dev.first), model.encode(dev.second))
        yield Line(name, model.num_encoder_parameters, **scores(METRICS, found, dev.labels))


def suite_table(lines: Sequence[suite.Line]) -> Table:
    """Return the scores of the suite, a line a model."""
    columns = (
        "model",
        "parameters",
        "STS-B",
        *(f"{share:.0%} typos" for share in suite.TYPOS),
        "SST-2 probe",
    )
    rows = [
        (name, count(parameters), *map(number, (found.stsb, *found.stsb_typos, found.sst2, found.qnli)))
        for name, parameters, found in lines
    ]
    return Table(
        "Sentence vectors without fine-tuning", (*columns, f"QNLI nDCG@{suite.NEAREST}"), tuple(rows)
    )


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("evaluate", argv)
    names = [name for name in invocation.flags["from"].split(",") if name]
    if invocation.flags["suite"] == "sentences":
        models = [(name, load(name, encoder_only=True)) for name in names]
        found = list(suite.run_suite(models, find_glue_dir(invocation.config.data.glue_dir)))
        if invocation.flags["json"]:
            for line in found:
                print(json.dumps({**line._asdict(), "scores": line.scores._asdict()}))
        else:
            print(markdown(suite_table(found)))
        return
    if invocation.flags["suite"] != "pairs":
        raise unknown("suite", invocation.flags["suite"], ("pairs", "sentences"))
    lines = list(evaluate(invocation.config, names))
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
