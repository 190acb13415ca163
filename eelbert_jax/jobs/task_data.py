"""From a task to batches and predictions: what fine-tuning and prediction share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from eelbert_jax.data import encoding, glue, tasks
from eelbert_jax.data.custom import custom_task
from eelbert_jax.data.tasks import Task
from eelbert_jax.training import sharding
from eelbert_jax.training.baselines import majority
from eelbert_jax.training.finetuning import Batch
from eelbert_jax.training.metrics import METRICS, Predictions
from eelbert_jax.vocabulary import Vocabulary


class Split(NamedTuple):
    """One encoded split.

    Attributes:
      encoded: n examples as token ids.
      labels: int32 [n] classes, float32 [n] numbers, or None where they are hidden.
    """

    encoded: encoding.Encoded
    labels: np.ndarray | None


class Data(NamedTuple):
    """A task's training split and its development splits by name."""

    task: Task
    train: Split
    dev: dict[str, Split]


def find_glue_dir(glue_dir: str | None) -> str | None:
    """Return the GLUE folder: the given one, else `$EELBERT_DATA/glue`, else None, which asks TFDS."""
    if glue_dir is None and "EELBERT_DATA" in os.environ:
        return str(Path(os.environ["EELBERT_DATA"]) / "glue")
    return glue_dir


def configured_task(config: ml_collections.ConfigDict) -> Task:
    """Return the task that `config.task` names: one of the table, or `custom`, made of `config.custom`."""
    if config.task != "custom":
        return tasks.find_task(config.task)
    custom = config.custom
    files = {split: custom[split] for split in ("train", "dev", "test") if custom[split] is not None}
    columns = [custom.text_column, custom.second_text_column]
    return custom_task(
        files,
        [column for column in columns if column is not None],
        custom.label_column,
        labels=custom.labels.split(",") if custom.labels else (),
        regression=custom.regression,
        dev_every=custom.dev_every,
    )


def load_data(config: ml_collections.ConfigDict, vocabulary: Vocabulary, lowercase: bool) -> Data:
    """Read and encode the task's training and development splits; say what was out of order or cut.

    Raises:
      UserError: a file is missing or not of its format, or a label is none of the task's.
    """
    task = configured_task(config)
    glue_dir = find_glue_dir(config.data.glue_dir)
    found: dict[str, Split] = {}
    for split in ("train", *task.dev_splits):
        examples = glue.load_examples(task, split, glue_dir=glue_dir, tfds_data_dir=config.data.tfds_data_dir)
        encoded = encoding.encode(examples, vocabulary, config.max_length, lowercase)
        found[split] = Split(encoded, examples.labels)
        print(
            f"{task.name} {split}: {examples.tally.describe()}; {encoded.num_truncated} cut to "
            f"{config.max_length} tokens",
            flush=True,
        )
    return Data(task, found.pop("train"), found)


def put(batch: Batch, mesh: Mesh) -> Batch:
    """Return the batch as global arrays, rows split over the devices."""
    over_rows = sharding.Layout(mesh).rows(row_axis=0)
    return jax.tree.map(
        lambda values: sharding.global_array(lambda index: values[index], values.shape, over_rows), batch
    )


def make_batch(split: Split, batch: encoding.Batch) -> Batch:
    """Return the examples of `batch` as rows of its length; hidden labels are zeros."""
    input_ids, attention_mask, token_type_ids = encoding.gather(split.encoded, batch.indices, batch.length)
    labels = np.zeros(len(batch.indices), np.int32) if split.labels is None else split.labels[batch.indices]
    return Batch(input_ids, attention_mask, token_type_ids, labels, batch.weights)


def predict(logits_of: Callable[[Batch], jax.Array], split: Split, batch_size: int) -> np.ndarray:
    """Return the logits of all examples in their order, float32 [n, C]; every example counts once."""
    parts = [
        Predictions.of_batch(batch.indices, np.asarray(logits_of(make_batch(split, batch))), batch.weights)
        for batch in encoding.eval_batches(split.encoded, batch_size)
    ]
    return Predictions.merge(parts).in_order(len(split.encoded))


def decide(logits: np.ndarray, task: Task) -> np.ndarray:
    """Return what metrics compare with labels: the numbers of a regression, else the best classes."""
    return logits[:, 0] if task.is_regression else np.argmax(logits, axis=-1)


def majority_scores(data: Data) -> dict[str, float]:
    """Return the metrics of always giving the training split's most frequent class, or its mean.

    What a model has to beat before a score means anything. Source: ours.
    """
    split = next(iter(data.dev.values()))
    assert data.train.labels is not None
    predictions = majority(data.train.labels, len(split.encoded))
    return {name: METRICS[name](predictions, split.labels) for name in data.task.metrics}
