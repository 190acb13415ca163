"""Examples of a task of texts: from a folder in the GLUE layout, from TFDS, or from a user's own files."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eelbert_jax.corpus import storage
from eelbert_jax.datasets.multilabel import names_in
from eelbert_jax.datasets.tables import Row, Tally, read_rows
from eelbert_jax.datasets.tasks import GLUE_TASKS, MULTILABEL, REGRESS, Task, check_labels
from eelbert_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Examples:
    """Hold the examples of one split in their order.

    Attributes:
      labels: int32 [n] class ids, float32 [n] numbers, int32 [n, C] with 1 for each label that a text has, or
        None where they are hidden.
      ids: int64 [n], GLUE's index, for a submission: the place in the file, skipped rows counted; of MRPC's
        train and dev from TFDS the place in the release that both were taken from.
    """

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray | None
    ids: np.ndarray
    tally: Tally

    def __len__(self) -> int:
        return len(self.first)


class _Example(NamedTuple):
    id: int
    texts: tuple[str, ...]
    label: float | np.ndarray | None


def load_examples(
    task: Task,
    split: str,
    *,
    glue_dir: str | None,
    tfds_data_dir: str | None = None,
    on_bad_record: str = "refuse",
) -> Examples:
    """Read one split.

    A row of GLUE's training files without a text or a label is skipped and counted, as TFDS does. Odd quotes
    and empty texts are kept and counted.

    Args:
      glue_dir: folder in the GLUE layout; None: ask TFDS for `glue/NAME`, which fetches it where it must.
      on_bad_record: "refuse" or "skip" any other row that cannot be used.
    """
    file = task.file_of(split)
    tally = Tally(on_bad_record)
    if task.official and glue_dir is None:
        examples = list(_from_tfds(task, split, tfds_data_dir, tally))
    else:
        examples = list(_from_file(task, split, _path(task, file, glue_dir), tally))
    if not examples:
        raise UserError(f"Split {split!r} of task {task.name!r} has no example ({tally.describe()}).")
    for example in examples:
        for text in example.texts:
            tally.count_text(text)
    tally.examples = len(examples)
    columns = list(zip(*(example.texts for example in examples), strict=True))
    dtype = np.float32 if task.kind == REGRESS else np.int32
    hidden = examples[0].label is None
    return Examples(
        first=columns[0],
        second=columns[1] if len(columns) > 1 else None,
        labels=None if hidden else np.array([example.label for example in examples], dtype),
        ids=np.array([example.id for example in examples], np.int64),
        tally=tally,
    )


def _path(task: Task, file: str, glue_dir: str | None) -> str:
    if task.is_custom:
        return file
    if glue_dir is None:
        raise UserError(
            f"Task {task.name!r} comes from files alone: name the folder that holds {task.folder}/{file} by "
            "--config.data.glue_dir=DIR."
        )
    return os.path.join(storage.canonical(glue_dir), task.folder, file)


def _from_file(task: Task, split: str, path: str, tally: Tally) -> Iterator[_Example]:
    if not task.is_custom and not os.path.isfile(path):
        raise _missing_file(task, split, Path(path))
    headless = not (task.official and split in task.test_splits)
    hidden = split in task.test_splits
    required = task.text_columns if hidden else (*task.text_columns, task.label_column)
    parse = _label_parser(task)
    for index, row in enumerate(read_rows(path, task.columns if headless else (), required, tally)):
        if task.dev_every and split in ("train", "dev") and (index % task.dev_every == 0) != (split == "dev"):
            continue
        missing = [name for name in required if _is_missing(task, row, name)]
        if missing:
            _miss(task, split, row.place, missing, tally)
            continue
        texts = tuple(row.fields[name] for name in task.text_columns)
        if hidden:
            yield _Example(index, texts, None)
            continue
        try:
            label = parse(_label_of(task, row))
        except ValueError as error:
            tally.bad_record(f"{row.place}: {error}")
            continue
        yield _Example(index, texts, label)


def _label_of(task: Task, row: Row) -> Any:
    """Return the label as it is spelt, or a list of several."""
    return (
        row.lists[task.label_column]
        if task.label_column in row.lists
        else row.fields[task.label_column].strip()
    )


def _is_missing(task: Task, row: Row, name: str) -> bool:
    """Return whether a field is not there; an empty text is one, an empty label none, but of several."""
    if name == task.label_column and task.kind == MULTILABEL:
        return name not in row.fields and name not in row.lists
    return name not in row.fields or (name == task.label_column and not row.fields[name].strip())


def _miss(task: Task, split: str, place: str, missing: list[str], tally: Tally) -> None:
    """Count a row that lacks a field, or refuse it."""
    if split == "train" and not task.is_custom:
        tally.skipped_rows += 1
        return
    tally.bad_record(
        f"{place}: {', '.join(map(repr, missing))} is missing, and a score over fewer rows is another score. "
        "Mend the row."
    )


def _missing_file(task: Task, split: str, path: Path) -> UserError:
    there = f"there is no folder {path.parent}"
    if path.parent.is_dir():
        there = f"{path.parent} holds {', '.join(sorted(p.name for p in path.parent.iterdir())) or 'nothing'}"
    advice = "Add the file"
    if task.official:
        advice += ", or ask TFDS by naming no folder (config.data.glue_dir empty, EELBERT_DATA unset)"
        samples = [t.name for t in GLUE_TASKS.values() if t.folder == task.folder and not t.official]
        advice += "".join(f", or take task={name}, whose figures are not official" for name in samples)
    return UserError(f"Task {task.name!r} has no {path.name} for its split {split!r}: {there}. {advice}.")


def _label_parser(task: Task) -> Callable[[Any], float | np.ndarray]:
    ids = task.label_ids()

    def parse_class(text: str) -> int:
        if text not in ids:
            flag = ", or set --config.custom.labels or label_separator" if task.is_custom else ""
            raise ValueError(
                f"{text!r} is no label of task {task.name!r}; expected one of {', '.join(ids)}. A tab inside "
                f"a text moves the columns: look there first{flag}."
            )
        return ids[text]

    def parse_classes(names: str | list[str]) -> np.ndarray:
        found = np.zeros(len(ids), np.int32)
        found[[parse_class(name) for name in names_in(names, task.label_separator)]] = 1
        return found

    def parse_number(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{text!r} is no label of task {task.name!r}; expected a finite number.")
        return number

    if task.kind == MULTILABEL:
        return parse_classes
    return parse_number if task.kind == REGRESS else parse_class


def _from_tfds(task: Task, split: str, data_dir: str | None, tally: Tally) -> Iterator[_Example]:
    """Yield a TFDS split in the order of its file: TFDS shuffles, and keeps each example's place in `idx`.

    It leaves rows without a class out itself, uncounted; where the label is a number it has NaN instead.
    """
    hidden = split in task.test_splits
    records = _open_tfds(task, split.replace("dev", "validation"), data_dir)
    for record in sorted(records, key=lambda record: record["idx"]):
        label = None if hidden else float(record["label"])
        if label is not None and not math.isfinite(label):
            _miss(task, split, f"glue/{task.name}, {split}, idx {record['idx']}", ["label"], tally)
            continue
        texts = tuple(record[name].decode("utf-8") for name in task.text_fields)
        yield _Example(int(record["idx"]), texts, label)


def _open_tfds(task: Task, split: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds  # here, since it takes seconds and a folder needs none of it
    import tensorflow_datasets.text.glue  # else GLUE is found only where TensorFlow is

    name = f"glue/{task.name}"
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.is_prepared():
            builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
            builder.download_and_prepare()
        source = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise UserError(
            f"{builder.data_dir} is in the {builder.info.file_format.value} format, which needs TensorFlow. "
            "Convert it with `tfds build --file_format=array_record`, or name another "
            "--config.data.tfds_data_dir."
        ) from error
    except (OSError, ValueError, AssertionError, tfds.download.DownloadError) as error:
        raise UserError(
            f"TFDS cannot give {name}, split {split!r}: {str(error).strip().splitlines()[0]}. Put the files "
            "into a folder in the GLUE layout and name it by --config.data.glue_dir=DIR."
        ) from error
    label = builder.info.features["label"]
    check_labels(task.labels, () if task.kind == REGRESS else label.names)
    return source
