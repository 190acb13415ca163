"""`eelbert baseline`: a bag of words on the task of a fine-tuning config, as a run that a report shows.

Takes the config of `eelbert finetune`, so that both read the same data, a table of one's own too; of it only
the task and where it lies matter. Leaves the model to `eelbert_jax.datasets.baselines`.
"""

import time
from pathlib import Path

import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.datasets.baselines import BagOfWords, majority
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.metrics import degenerate, scores
from eelbert_jax.datasets.splits import configured_task, find_glue_dir
from eelbert_jax.record import ModelRecord, Result, own_data
from eelbert_jax.training.environment import environment

NAME = "bag of words"


def baseline(config: ml_collections.ConfigDict, workdir: str | Path) -> Result:
    """Train a bag of words and score it on the development splits; write and return `result.json`.

    Args:
      config: of `configs/glue.py`.
      workdir: receives `config.json` and `result.json`.

    Raises:
      UserError: a file of the task is missing or not of its format.
    """
    workdir, started = Path(workdir), time.monotonic()
    cli.write_config(config, workdir)
    task, glue_dir = configured_task(config.to_dict()), find_glue_dir(config.data.glue_dir)
    splits = {
        split: load_examples(task, split, glue_dir=glue_dir, tfds_data_dir=config.data.tfds_data_dir)
        for split in ("train", *task.dev_splits)
    }
    for split, examples in splits.items():
        print(f"{task.name} {split}: {examples.tally.describe()}", flush=True)
    train = splits["train"]
    assert train.labels is not None
    model = BagOfWords.fit(train.first, train.second, train.labels, len(task.labels))
    metrics: dict[str, float] = {}
    predictions = {
        split: model.predict(splits[split].first, splits[split].second) for split in task.dev_splits
    }
    for split, found in predictions.items():
        suffix = "" if split == task.dev_splits[0] else "_" + split.removeprefix("dev_")
        figures = scores(task.metrics, found, splits[split].labels)
        metrics |= {name + suffix: value for name, value in figures.items()}
    first_dev = splits[task.dev_splits[0]]
    result = Result(
        task=task.name,
        official=task.official,
        split=task.dev_splits[0],
        model=ModelRecord(NAME, None, None, int(np.count_nonzero(model.weights))),
        pretrained=None,
        seed=0,
        learning_rate=0.0,
        batch_size=len(train),
        num_epochs=0,
        selection="none: the optimum of the training data",
        best_step=0,
        total_steps=0,
        metrics=metrics,
        final_metrics=metrics,
        degenerate=any(degenerate(found) for found in predictions.values()),
        majority=scores(task.metrics, majority(train.labels, len(first_dev)), first_dev.labels),
        num_examples={split: len(examples) for split, examples in splits.items()},
        truncated=0,
        hardware="cpu",
        commit=environment()["commit"],
        seconds=round(time.monotonic() - started, 1),
        data=own_data(config.to_dict()),
    )
    result.write(workdir)
    return result


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("baseline", argv)
    result = baseline(invocation.config, invocation.workdir)
    for name, found in ((NAME, result.metrics), ("majority class", result.majority)):
        print(f"{name} on {result.task}:", "  ".join(f"{key} {value:.4f}" for key, value in found.items()))
