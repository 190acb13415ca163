"""A user's own classification or regression set as a task like GLUE's: TSV, CSV or jsonl with named columns.

Leaves reading the examples to `glue`, which makes no difference between the two.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from eelbert_jax.datasets.tables import Tally, read_rows
from eelbert_jax.datasets.tasks import Task
from eelbert_jax.errors import UserError

SPLITS = ("train", "dev", "test")
MOST_LABELS = 1000
"""More distinct values than this in a column are no classes, but a wrong column."""


def custom_task(
    files: Mapping[str, str],
    text_columns: Sequence[str],
    label_column: str,
    *,
    labels: Sequence[str] = (),
    regression: bool = False,
    metrics: Sequence[str] = (),
    columns: Sequence[str] = (),
    dev_every: int = 0,
    name: str = "custom",
) -> Task:
    """Return the task that a user's files make. Source: ours.

    Args:
      files: path by split, of "train", "dev" and "test"; the suffix tells the format.
      text_columns: the columns, or fields of a jsonl line, with the one text or the two.
      label_column: the column with the class's name or the number; not needed in a test file.
      labels: the classes in the order of their ids; empty: the training file's, sorted.
      regression: the label is a number.
      metrics: names in `training.metrics.METRICS`, the first one selects; empty: accuracy, with F1 where
        there are two classes, or Pearson and Spearman.
      columns: names of all columns where the files have no header line.
      dev_every: hold every so many rows of the training file out as the dev split; 0: there is a dev file.
      name: how the task is called in reports.

    Raises:
      UserError: a split is unknown or missing, the columns are not one text or two, or the labels cannot be
        told from the training file.
    """
    splits = dict(files)
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or "train" not in splits:
        raise UserError(
            f"Task {name!r} has files for {', '.join(splits) or 'no split'}; expected train, dev and "
            "perhaps test."
        )
    if ("dev" in splits) == bool(dev_every) or dev_every < 0 or dev_every == 1:
        raise UserError(
            f"Task {name!r} needs a dev split: either a dev file, or dev_every of 2 or more to hold rows of "
            f"the training file out (got {splits.get('dev')!r} and {dev_every})."
        )
    if len(text_columns) not in (1, 2) or not all(text_columns) or not label_column:
        raise UserError(
            f"Task {name!r} needs one or two text columns and a label column, got {list(text_columns)} and "
            f"{label_column!r}."
        )
    if regression and labels:
        raise UserError(f"Task {name!r}: a regression has no class names, got {', '.join(labels)}.")
    if labels and (len(set(labels)) < len(labels) or len(labels) < 2):
        raise UserError(f"Task {name!r} needs two or more different labels, got {', '.join(labels)}.")
    splits.setdefault("dev", splits["train"])
    paths = tuple((split, os.path.abspath(splits[split])) for split in SPLITS if split in splits)
    if not regression and not labels:
        labels = _find_labels(Path(splits["train"]), columns, label_column)
    if not metrics and regression:
        metrics = ("pearson", "spearman")
    elif not metrics:
        metrics = ("accuracy", "f1") if len(labels) == 2 else ("accuracy",)
    return Task(
        name=name,
        folder="",
        text_fields=tuple(text_columns),
        text_columns=tuple(text_columns),
        label_column=label_column,
        labels=tuple(labels),
        metrics=tuple(metrics),
        files=paths,
        test_splits=("test",) if "test" in splits else (),
        columns=tuple(columns),
        dev_every=dev_every,
        official=False,
    )


def _find_labels(path: Path, columns: Sequence[str], label_column: str) -> tuple[str, ...]:
    """Return the distinct labels of a training file, sorted.

    Raises:
      UserError: they are fewer than two, or so many that they are none.
    """
    rows = read_rows(path, columns, (label_column,), Tally())
    found = sorted({label for row in rows if (label := row.fields.get(label_column, "").strip())})
    if not 2 <= len(found) <= MOST_LABELS:
        some = ", ".join(map(repr, found[:5]))
        raise UserError(
            f"{path}: column {label_column!r} has {len(found)} distinct labels ({some}); expected from 2 to "
            f"{MOST_LABELS}. Name the right label column, or ask for a regression."
        )
    return tuple(found)
