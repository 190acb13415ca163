"""Examples of a task: from a folder in the GLUE layout, from TFDS, or from a user's own files.

Both sources give the same examples in the same order. The one door for every sentence task; leaves the table
of tasks to `tasks`, a user's task to `custom`, sentences with a label a word to `conll`, and token ids to
`encoding`. One of the two importers of `tensorflow_datasets`.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eelbert_jax.datasets.custom import custom_task
from eelbert_jax.datasets.tables import Tally, read_rows
from eelbert_jax.datasets.tasks import GLUE_TASKS, Task, check_labels, find_task
from eelbert_jax.errors import UserError

__all__ = [
    "GLUE_TASKS",
    "Examples",
    "Task",
    "check_labels",
    "custom_task",
    "find_task",
    "load_examples",
]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Hold the examples of one split in their order.

    Attributes:
      first: n texts.
      second: n texts of a task of pairs, else None.
      labels: int32 [n] class ids, float32 [n] numbers, or None where they are hidden.
      ids: int64 [n], GLUE's index: the place in the file, skipped rows counted; a submission needs it. The
        exception is MRPC's train and dev from TFDS, which number the release that both were taken from.
      tally: what the reader met.
    """

    first: tuple[str, ...]
    second: tuple[str, ...] | None
    labels: np.ndarray | None
    ids: np.ndarray
    tally: Tally

    def __len__(self) -> int:
        """Return n."""
        return len(self.first)


class _Example(NamedTuple):
    """One example on its way into `Examples`."""

    id: int
    texts: tuple[str, ...]
    label: float | None


def load_examples(
    task: Task, split: str, *, glue_dir: str | None, tfds_data_dir: str | None = None
) -> Examples:
    """Read one split.

    A row of a training file without a text or a label is skipped and counted, as TFDS does; in a dev or test
    file it is an error, since a score over fewer rows is another score. Quotes, byte-order marks inside a
    text and empty texts are kept as they are, and counted. Source: GLUE; the rules for bad rows are ours.

    Args:
      task: of `GLUE_TASKS` or from `custom_task`.
      split: one of the task's.
      glue_dir: folder in the GLUE layout; None: ask TFDS for `glue/NAME`, which fetches it where it must.
      tfds_data_dir: where TFDS keeps its data; None: where it usually does.

    Raises:
      UserError: the task or the split is not there, a file is not of its format, a label is none of the
        task's, a dev or test row lacks a field, or no example is left.
    """
    file = task.file_of(split)
    tally = Tally()
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
    kind = np.float32 if task.is_regression else np.int32
    hidden = examples[0].label is None
    return Examples(
        first=columns[0],
        second=columns[1] if len(columns) > 1 else None,
        labels=None if hidden else np.array([example.label for example in examples], kind),
        ids=np.array([example.id for example in examples], np.int64),
        tally=tally,
    )


def _path(task: Task, file: str, glue_dir: str | None) -> Path:
    """Return where a file lies; a user's own task names its files from the root.

    Raises:
      UserError: the file is known by its place in a folder alone and there is no folder.
    """
    path = Path(glue_dir or "") / task.folder / file
    if glue_dir is None and task.folder:
        raise UserError(
            f"Task {task.name!r} comes from files alone: name the folder that holds {task.folder}/{file} by "
            "--config.data.glue_dir=DIR."
        )
    return path


def _from_file(task: Task, split: str, path: Path, tally: Tally) -> Iterator[_Example]:
    """Yield the examples of a file.

    Raises:
      UserError: as `load_examples`.
    """
    if not path.is_file():
        raise _missing(task, split, path)
    headless = not (task.official and split in task.test_splits)
    hidden = split in task.test_splits
    required = task.text_columns if hidden else (*task.text_columns, task.label_column)
    parse = _label_parser(task)
    number = 0
    for row in read_rows(path, task.columns if headless else (), required, tally):
        place = f"{path}, line {row.line}"
        index, number = number, number + 1
        if task.dev_every and split in ("train", "dev") and (index % task.dev_every == 0) != (split == "dev"):
            continue
        label = None if hidden else row.fields.get(task.label_column, "").strip()
        missing = [name for name in task.text_columns if name not in row.fields]
        missing += [task.label_column] if label == "" else []
        if missing:
            _skip(split, place, missing, tally)
            continue
        texts = tuple(row.fields[name] for name in task.text_columns)
        yield _Example(index, texts, None if label is None else parse(label, place))


def _skip(split: str, place: str, missing: list[str], tally: Tally) -> None:
    """Count a training row that is left out.

    Raises:
      UserError: it is a row of another split.
    """
    if split != "train":
        raise UserError(
            f"{place}: {', '.join(map(repr, missing))} is missing, and a score over fewer rows is another "
            "score. Mend the row."
        )
    tally.skipped_rows += 1


def _missing(task: Task, split: str, path: Path) -> UserError:
    """Return the error for a file that is not there, with what is."""
    there = f"there is no folder {path.parent}"
    if path.parent.is_dir():
        there = f"{path.parent} holds {', '.join(sorted(p.name for p in path.parent.iterdir())) or 'nothing'}"
    advice = "Add the file"
    if task.official:
        advice += ", or ask TFDS by naming no folder (config.data.glue_dir empty, EELBERT_DATA unset)"
        samples = [t.name for t in GLUE_TASKS.values() if t.folder == task.folder and not t.official]
        advice += "".join(f", or take task={name}, whose figures are not official" for name in samples)
    return UserError(f"Task {task.name!r} has no {path.name} for its split {split!r}: {there}. {advice}.")


def _label_parser(task: Task) -> Any:
    """Return (text, place) -> class id or number.

    Raises:
      UserError: on a call, where the text is no label of the task.
    """
    ids = task.label_ids()

    def parse_class(text: str, place: str) -> int:
        if text not in ids:
            raise UserError(
                f"{place}: {text!r} is no label of task {task.name!r}; expected one of "
                f"{', '.join(ids)}. A tab inside a text moves the columns: look there first."
            )
        return ids[text]

    def parse_number(text: str, place: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{place}: {text!r} is no label of task {task.name!r}; expected a finite number.")
        return number

    return parse_number if task.is_regression else parse_class


def _from_tfds(task: Task, split: str, data_dir: str | None, tally: Tally) -> Iterator[_Example]:
    """Yield the examples of a TFDS split, in the order of the file they came from.

    TFDS shuffles what it writes and keeps each example's place in its `idx`. It skips rows without a label
    itself, without a word; where the label is a number it keeps them as NaN instead.

    Raises:
      UserError: as `load_examples`.
    """
    hidden = split in task.test_splits
    records = _open_tfds(task, split.replace("dev", "validation"), data_dir)
    for record in sorted(records, key=lambda record: record["idx"]):
        label = None if hidden else float(record["label"])
        if label is not None and not math.isfinite(label):
            _skip(split, f"glue/{task.name}, {split}, idx {record['idx']}", ["label"], tally)
            continue
        texts = tuple(record[name].decode("utf-8") for name in task.text_fields)
        yield _Example(int(record["idx"]), texts, label)


def _open_tfds(task: Task, split: str, data_dir: str | None) -> Any:
    """Return the records of a TFDS split, fetched and prepared where they are not there.

    Raises:
      UserError: they cannot be had, lie in a format that cannot be read without TensorFlow, or number the
        classes otherwise.
    """
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
    check_labels(task.labels, () if task.is_regression else label.names)
    return source
