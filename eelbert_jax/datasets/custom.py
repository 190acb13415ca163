"""A user's own table, of classes, of several labels a text or of numbers, as a task like GLUE's."""

import os
from collections.abc import Iterable, Mapping, Sequence

from eelbert_jax.corpus import storage
from eelbert_jax.datasets import multilabel
from eelbert_jax.datasets.tables import Tally, read_rows, table_format
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
    label_separator: str = "",
    regression: bool = False,
    metrics: Sequence[str] = (),
    columns: Sequence[str] = (),
    dev_every: int = 0,
    name: str = "custom",
    on_bad_record: str = "refuse",
) -> Task:
    """Return the task that a user's files make.

    Args:
      files: path or URL by split, of "train", "dev" and "test"; the suffix tells the format.
      text_columns: one, or two of a pair of texts.
      label_column: not needed in a test file.
      labels: the classes in the order of their ids; empty: the training file's, sorted.
      label_separator: between the labels of a cell, which may have none; "": a cell is one label, or where
        the first one of the training file is a list, any number of them.
      metrics: the first one selects; empty: those of `_default_metrics`.
      columns: names of all columns where the files have no header line.
      dev_every: hold every so many rows of the training file out as the dev split; 0: there is a dev file.
    """
    labels = tuple(label.strip() for label in labels)
    columns = tuple(column.strip() for column in columns)
    _check_splits(name, files, dev_every)
    _check_columns(name, text_columns, label_column)
    _check_labels(name, labels, regression, label_separator)
    paths = {split: absolute(files[split]) for split in SPLITS if split in files}
    label_lists = not regression and _has_list(paths["train"], label_column)
    if not regression and not labels:
        labels = _find_labels(paths["train"], columns, label_column, label_separator, Tally(on_bad_record))
    if dev_every:
        paths["dev"] = paths["train"]
    return Task(
        name=name,
        folder="",
        text_fields=tuple(text_columns),
        text_columns=tuple(text_columns),
        label_column=label_column,
        labels=labels,
        metrics=tuple(metrics) or _default_metrics(len(labels), bool(label_separator) or label_lists),
        files=tuple(paths.items()),
        test_splits=("test",) if "test" in paths else (),
        columns=columns,
        dev_every=dev_every,
        label_separator=label_separator,
        label_lists=label_lists,
        official=False,
    )


def _check_splits(name: str, files: Mapping[str, str], dev_every: int) -> None:
    if "train" not in files or not set(files) <= set(SPLITS):
        raise UserError(
            f"Task {name!r} has files for {', '.join(files) or 'no split'}; expected train, dev and perhaps "
            "test: set --config.custom.train=FILE."
        )
    if ("dev" in files) == bool(dev_every) or dev_every < 0 or dev_every == 1:
        raise UserError(
            f"Task {name!r} needs a dev split: either a dev file (--config.custom.dev), or "
            "--config.custom.dev_every of 2 or more to hold rows of the training file out (got "
            f"{files.get('dev')!r} and {dev_every})."
        )


def _check_columns(name: str, text_columns: Sequence[str], label_column: str) -> None:
    if len(text_columns) not in (1, 2) or not all(text_columns) or not label_column:
        raise UserError(
            f"Task {name!r} needs one or two text columns and a label column, got {list(text_columns)} and "
            f"{label_column!r}: set --config.custom.text_column, second_text_column and label_column."
        )


def _check_labels(name: str, labels: Sequence[str], regression: bool, label_separator: str) -> None:
    if regression and label_separator:
        raise UserError(
            f"Task {name!r}: a number is one label, got label_separator={label_separator!r}; leave "
            "--config.custom.regression or --config.custom.label_separator out."
        )
    if regression and labels:
        raise UserError(f"Task {name!r}: a regression has no class names, got {', '.join(labels)}.")
    if labels and (len(set(labels)) < len(labels) or len(labels) < 2):
        raise UserError(
            f"Task {name!r} needs two or more different labels, got {', '.join(labels)}: mend "
            "--config.custom.labels."
        )


def _default_metrics(num_classes: int, takes_several: bool) -> tuple[str, ...]:
    if not num_classes:
        return ("pearson", "spearman")
    if takes_several:
        return tuple(multilabel.METRICS)
    return ("accuracy", "f1") if num_classes == 2 else ("accuracy",)


def absolute(path: str) -> str:
    """Return the full path of a file; a URL as it is."""
    path = storage.canonical(path)
    return path if storage.is_url(path) else os.path.abspath(path)


def _find_labels(
    path: str, columns: Sequence[str], label_column: str, separator: str, tally: Tally
) -> tuple[str, ...]:
    cells: set[str] = set()
    listed: set[str] = set()
    for row in read_rows(path, columns, (label_column,), tally):
        cells.add(row.fields.get(label_column, "").strip())
        listed.update(multilabel.names_in(row.lists.get(label_column, ()), separator))
    cells.discard("")
    if separator:
        if not listed and not any(separator in cell for cell in cells):
            raise UserError(
                f"{path}: label_separator={separator!r} is in no cell of column {label_column!r} "
                f"({_some(cells)}). Set --config.custom.label_separator to what stands between labels, or "
                "name them by --config.custom.labels where no text has two."
            )
        cells = {name for cell in cells for name in multilabel.names_in(cell, separator)}
    found = sorted(cells | listed)
    if not 2 <= len(found) <= MOST_LABELS:
        raise UserError(
            f"{path}: column {label_column!r} has {len(found)} distinct labels ({_some(found)}); expected "
            f"from 2 to {MOST_LABELS}. Name the right column by --config.custom.label_column, or set "
            "--config.custom.regression=True for numbers."
        )
    return tuple(found)


def _has_list(path: str, column: str) -> bool:
    """Return whether the first label of a table is a list."""
    if table_format(path) not in ("jsonl", "parquet"):
        return False
    rows = read_rows(path, (), (column,), Tally("skip"))
    return next((column in row.lists for row in rows if column in {*row.fields, *row.lists}), False)


def _some(labels: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(labels)[:5]))
