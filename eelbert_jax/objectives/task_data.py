"""A task of texts, read, encoded and scored; and the choice between it and a task of words."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from eelbert_jax.datasets import encoding, glue, metrics, tasks
from eelbert_jax.datasets.baselines import majority
from eelbert_jax.datasets.conll import TOKENS
from eelbert_jax.datasets.custom import custom_task
from eelbert_jax.datasets.tasks import Task
from eelbert_jax.errors import UserError
from eelbert_jax.model.bert import BertForSequenceClassification
from eelbert_jax.objectives.examples import LogitsOf, Split, predict
from eelbert_jax.objectives.token_data import TokenData, load_token_data
from eelbert_jax.vocabulary import Vocabulary


def find_glue_dir(glue_dir: str | None) -> str | None:
    """Return the GLUE folder: the given one, else `$EELBERT_DATA/glue`, else None, which asks TFDS."""
    if glue_dir is None and "EELBERT_DATA" in os.environ:
        return str(Path(os.environ["EELBERT_DATA"]) / "glue")
    return glue_dir


def configured_task(config: ml_collections.ConfigDict) -> Task:
    """Return the task of texts that a config names: one of the table, or `custom`, made of `config.custom`.

    Raises:
      UserError: there is no such task, it is one of words, or its files do not make a task.
    """
    if config.task == TOKENS:
        raise UserError("task=tokens labels words, and a label of whole texts is needed here; name another.")
    if config.task != "custom":
        return tasks.find_task(config.task)
    custom = config.custom
    files = {split: custom[split] for split in ("train", "dev") if custom[split] is not None}
    texts = [custom.text_column, custom.second_text_column]
    return custom_task(
        files,
        [column for column in texts if column is not None],
        custom.label_column,
        labels=custom.labels.split(",") if custom.labels else (),
        regression=custom.regression,
        columns=custom.columns.split(",") if custom.columns else (),
        dev_every=custom.dev_every,
    )


def decide(logits: np.ndarray, task: Task) -> np.ndarray:
    """Return what metrics compare with labels: the numbers of a regression, else the best classes."""
    return logits[:, 0] if task.is_regression else np.argmax(logits, axis=-1)


@dataclasses.dataclass(frozen=True)
class TextData:
    """A task with a label for every text: its splits, and how answers are scored."""

    task: Task
    train: Split
    dev: dict[str, Split]

    model_class = BertForSequenceClassification

    def answer(self, logits_of: LogitsOf, split: Split, batch_size: int) -> np.ndarray:
        """Return a class or a number for every example in their order, [n]."""
        return decide(predict(logits_of, split, batch_size), self.task)

    def scores(self, answers: np.ndarray, split: Split) -> dict[str, float]:
        """Return the task's metrics."""
        return metrics.scores(self.task.metrics, answers, split.labels)

    def is_degenerate(self, answers: np.ndarray) -> bool:
        """Whether every example gets the same class."""
        return not self.task.is_regression and metrics.degenerate(answers)

    def majority(self, split: Split) -> np.ndarray:
        """Return the answers that are always the training split's most frequent class, or its mean."""
        assert isinstance(self.train.labels, np.ndarray)
        return majority(self.train.labels, len(split.encoded))


Data = TextData | TokenData


def load_data(config: ml_collections.ConfigDict, vocabulary: Vocabulary, lowercase: bool) -> Data:
    """Read and encode the task's training and development splits; say what was out of order or cut.

    Raises:
      UserError: a file is missing or not of its format, or a label is none of the task's.
    """
    if config.task == TOKENS:
        return load_token_data(config, vocabulary, lowercase)
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
    return TextData(task, found.pop("train"), found)


def majority_scores(data: Data) -> dict[str, float]:
    """Return the metrics of always giving the training split's most frequent label, or its mean.

    What a model has to beat before a score means anything. Source: ours.
    """
    split = next(iter(data.dev.values()))
    answers: Any = data.majority(split)
    return data.scores(answers, split)
