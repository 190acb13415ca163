"""The splits of a task, read and encoded; their batches as arrays, and outputs back in their order."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eelbert_jax.datasets import encoding, multilabel, tasks
from eelbert_jax.datasets.conll import TOKENS, TokenExamples, TokenTask, load_conll, token_task
from eelbert_jax.datasets.custom import SPLITS, absolute, custom_task
from eelbert_jax.datasets.glue import Examples, load_examples
from eelbert_jax.datasets.metrics import LOWER_IS_BETTER, METRICS, Predictions
from eelbert_jax.datasets.tables import open_file
from eelbert_jax.datasets.tasks import MULTILABEL, REGRESS, TAG, Task, TaskRecord
from eelbert_jax.datasets.typos import noised
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary, check_unknown, unknown_among


class Split(NamedTuple):
    """Hold an encoded split.

    Attributes:
      labels: int32 [n] classes, int32 [n, C] with 1 for each label that a text has, float32 [n] numbers, for
        every sentence the tags of its words int32 [words], or None where they are hidden. Where only some
        are, theirs are `encoding.IGNORED`, or NaN.
      teacher: what a teacher says of the examples, float32 [n, C]; None: there is none.
      teacher_states: its last states of [CLS], float32 [n, D]; None: they are not learned.
    """

    encoded: encoding.Encoded
    labels: np.ndarray | tuple[np.ndarray, ...] | None
    teacher: np.ndarray | None = None
    teacher_states: np.ndarray | None = None


class Batch(NamedTuple):
    """Hold encoded examples of one static shape.

    Attributes:
      input_ids: int32 [B, L].
      attention_mask: bool [B, L], True = a real token.
      token_type_ids: int32 [B, L].
      labels: int32 [B] classes, int32 [B, C] labels, float32 [B] scores, or int32 [B, L] tags.
      weights: float32 [B], of tags [B, L]; 0 for a row, or a token, that does not count.
      teacher: float32 [B, C], or None.
      teacher_states: float32 [B, D], or None.
    """

    input_ids: Any
    attention_mask: Any
    token_type_ids: Any
    labels: Any
    weights: Any
    teacher: Any = None
    teacher_states: Any = None


LogitsOf = Callable[[Batch], Any]


@dataclasses.dataclass(frozen=True)
class TaskData:
    """Hold a task and its encoded splits.

    Attributes:
      dev: by name; the first one selects the best step.
      test: scored once, with the best step; None where there is no file with labels.
    """

    task: Task | TokenTask
    train: Split
    dev: Mapping[str, Split]
    test: Split | None = None

    @property
    def scored(self) -> dict[str, Split]:
        """The splits that are scored at the end, by name."""
        return dict(self.dev) if self.test is None else {**self.dev, "test": self.test}

    def record(self, max_length: int, pair_encoder: str = "cross") -> TaskRecord:
        """Return what a model trained on it has to remember."""
        task = self.task
        mean, std = 0.0, 1.0
        if task.kind == REGRESS:
            labels = self.train.labels
            assert isinstance(labels, np.ndarray)
            mean, std = float(np.mean(labels)), float(np.std(labels)) or 1.0
            if pair_encoder == "bi":
                mean, std = float(labels.max() + labels.min()) / 2, float(np.ptp(labels)) / 2 or 1.0
        return TaskRecord(
            task.name, task.kind, task.labels, task.reads_pairs, max_length, mean, std, pair_encoder
        )


def find_glue_dir(glue_dir: str | None) -> str | None:
    """Return the GLUE folder: the given one, else `$EELBERT_DATA/glue`, else None, which asks TFDS."""
    if glue_dir is None and "EELBERT_DATA" in os.environ:
        return str(Path(os.environ["EELBERT_DATA"]) / "glue")
    return glue_dir


def configured_task(settings: Mapping[str, Any]) -> Task:
    """Return the task of texts that settings of `configs/glue.py` name, `custom` made of its files."""
    if settings["task"] == TOKENS:
        raise UserError("task=tokens labels words, and a label of whole texts is needed here; name another.")
    if settings["task"] != "custom":
        return tasks.find_task(settings["task"])
    custom = settings["custom"]
    files = {split: custom[split] for split in ("train", "dev") if custom[split] is not None}
    texts = [custom["text_column"], custom["second_text_column"]]
    return custom_task(
        files,
        [column for column in texts if column is not None],
        custom["label_column"],
        labels=_names(custom["labels"]),
        label_separator=custom.get("label_separator") or "",
        regression=custom["regression"],
        columns=_names(custom["columns"]),
        dev_every=custom["dev_every"],
        name=_own_name(settings),
        on_bad_record=settings["on_bad_record"],
    )


def _own_name(settings: Mapping[str, Any]) -> str:
    name = settings["task_name"] or settings["task"]
    if name in tasks.GLUE_TASKS:
        raise UserError(f"config.task_name={name!r} is a task of GLUE; give yours another name.")
    return name


def _names(by_commas: str | None) -> tuple[str, ...]:
    return tuple(by_commas.split(",")) if by_commas else ()


def select_by(task: Task | TokenTask, metric: str | None) -> Task | TokenTask:
    """Return the task with `metric` first, which selects the best step; None: its own order."""
    if metric is None:
        return task
    known = multilabel.METRICS if task.kind == MULTILABEL else METRICS
    if metric not in known or metric in LOWER_IS_BETTER:
        legal = [name for name in known if name not in LOWER_IS_BETTER]
        raise UserError(f"metric={metric!r} cannot select the best step; take one of {', '.join(legal)}.")
    if (metric == "entity_f1") > (task.kind == TAG):
        raise UserError(f"metric={metric!r} is of tagged words; {task.name} labels texts.")
    others = (name for name in task.metrics if name != metric)
    return dataclasses.replace(task, metrics=(metric, *others))


def file_digests(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 by split of the files of a user's own task; of GLUE's nothing."""
    files, digests = settings.get(settings["task"], {}), {}
    for split in SPLITS:
        if files.get(split) is not None:
            with open_file(files[split]) as file:
                digests[split] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def load_data(settings: Mapping[str, Any], vocabulary: Vocabulary, lowercase: bool) -> TaskData:
    """Read and encode the splits that settings name; say what was out of order or cut."""
    max_length, found = settings["max_length"], {}
    task, splits = read_splits(settings)
    for split, examples in splits.items():
        if isinstance(examples, TokenExamples):
            encoded = encoding.encode_words(examples.words, vocabulary, max_length, lowercase)
            labels: Any = examples.tags
        else:
            encoded = encoding.encode(examples, vocabulary, max_length, lowercase)
            labels = examples.labels
        found[split] = Split(encoded, labels)
        num_unknown, num_tokens = unknown_among(encoded.ids, vocabulary)
        print(
            f"{task.name} {split}: {examples.tally.describe()}; {encoded.num_truncated} cut to {max_length} "
            f"tokens, {num_unknown / max(num_tokens, 1):.2%} of the tokens are [UNK]",
            flush=True,
        )
        check_unknown(num_unknown, num_tokens, settings["max_unknown_percent"], lowercase)
    return TaskData(task, found.pop("train"), test=found.pop("test", None), dev=found)


def read_splits(
    settings: Mapping[str, Any],
) -> tuple[Task | TokenTask, Mapping[str, Examples | TokenExamples]]:
    """Return the task that settings name, and its splits: train, dev and, where a file is named, test."""
    task, splits = _read_words(settings) if settings["task"] == TOKENS else _read_texts(settings)
    return select_by(task, settings["metric"]), splits


def _read_texts(settings: Mapping[str, Any]) -> tuple[Task, dict[str, Examples]]:
    task, data = configured_task(settings), settings["data"]
    options = {
        "glue_dir": find_glue_dir(data["glue_dir"]),
        "tfds_data_dir": data["tfds_data_dir"],
        "on_bad_record": settings["on_bad_record"],
    }
    found = {split: load_examples(task, split, **options) for split in ("train", *task.dev_splits)}
    test = settings["custom"]["test"]
    if test is not None and not task.official:  # read as the development file is: it has labels
        labelled = dataclasses.replace(task, files=(("dev", absolute(test)),), dev_every=0)
        found["test"] = load_examples(labelled, "dev", **options)
    return task, found


def with_unlabelled(
    split: Split,
    task: Task,
    path: str,
    vocabulary: Vocabulary,
    lowercase: bool,
    noise_percent: float = 0.0,
    seed: int = 0,
) -> Split:
    """Return a split with the texts of a table behind its examples, for a teacher to answer.

    `noise_percent` of their words have an error each; see `typos.noised`.
    """
    unlabelled = dataclasses.replace(
        task,
        folder="",
        columns=(),
        files=(("unlabelled", absolute(path)),),
        test_splits=("unlabelled",),
        dev_every=0,
        official=False,
    )
    examples = load_examples(unlabelled, "unlabelled", glue_dir=None)
    print(f"{path}: {examples.tally.describe()}, without labels", flush=True)
    first = noised(examples.first, noise_percent, seed)
    second = None if examples.second is None else noised(examples.second, noise_percent, seed + 1)
    examples = dataclasses.replace(
        examples, first=tuple(first), second=None if second is None else tuple(second)
    )
    more = encoding.encode(examples, vocabulary, split.encoded.max_length, lowercase)
    assert isinstance(split.labels, np.ndarray)
    none = np.nan if task.kind == REGRESS else encoding.IGNORED
    labels = np.concatenate([split.labels, np.full(len(more), none, split.labels.dtype)])
    return Split(encoding.joined(split.encoded, more), labels)


def _read_words(settings: Mapping[str, Any]) -> tuple[TokenTask, dict[str, TokenExamples]]:
    """Return the task of tagged words and its splits.

    The tags are the settings' or the training file's: one of the development file alone could not be learned.
    """
    tokens, found = settings["tokens"], {}
    labels = _names(tokens["labels"])
    for split in ("train", "dev", *(["test"] if tokens["test"] is not None else [])):
        if tokens[split] is None:
            raise UserError(
                f"task=tokens needs a file of words and tags for {split}: set --config.tokens.{split}=FILE."
            )
        found[split] = load_conll(
            tokens[split],
            labels,
            word_column=tokens["word_column"],
            tag_column=tokens["tag_column"],
            on_bad_record=settings["on_bad_record"],
        )
        labels = found[split].labels
        if len(labels) < 2:
            raise UserError(
                f"{tokens['train']} has one tag alone, {labels[0]!r}; expected two or more. Set "
                "--config.tokens.tag_column to the column of the tags."
            )
    return token_task(labels, _own_name(settings)), found


def make_batch(split: Split, batch: encoding.BatchIndices) -> Batch:
    """Return the examples of `batch` as rows of its length; hidden labels are zeros."""
    input_ids, attention_mask, token_type_ids = encoding.gather(split.encoded, batch.indices, batch.length)
    labels, weights = np.zeros(len(batch.indices), np.int32), batch.weights
    if isinstance(split.labels, tuple):
        labels = encoding.gather_tags(split.encoded, split.labels, batch.indices, batch.length)
        weights = weights[:, None] * (labels != encoding.IGNORED)
    elif split.labels is not None:
        labels = split.labels[batch.indices]
    taught = (None if of is None else of[batch.indices] for of in (split.teacher, split.teacher_states))
    return Batch(input_ids, attention_mask, token_type_ids, labels, weights, *taught)


def outputs(
    logits_of: LogitsOf, split: Split, batch_size: int
) -> Iterator[tuple[encoding.BatchIndices, np.ndarray]]:
    """Yield batches that hold every example once, with a model's outputs for them."""
    for batch in encoding.eval_batches(split.encoded, batch_size):
        yield batch, np.asarray(logits_of(make_batch(split, batch)))


def predict(logits_of: LogitsOf, split: Split, batch_size: int) -> np.ndarray:
    """Return the outputs for all examples in their order, [n, ...]; every example counts once."""
    parts = [
        Predictions.of_batch(batch.indices, logits, batch.weights)
        for batch, logits in outputs(logits_of, split, batch_size)
    ]
    return Predictions.merge(parts).in_order(len(split.encoded))


def predict_words(logits_of: LogitsOf, split: Split, batch_size: int) -> list[np.ndarray]:
    """Return for every sentence, in order, the outputs for its words, float32 [words that are left, C]."""
    found: dict[int, np.ndarray] = {}
    for batch, logits in outputs(logits_of, split, batch_size):
        indices = batch.indices[batch.weights > 0]
        of_words = encoding.at_words(split.encoded, indices, logits[batch.weights > 0])
        found.update(zip(indices.tolist(), of_words, strict=True))
    return [found[i] for i in range(len(split.encoded))]
