"""Files for the GLUE test server, which takes a zip of all eleven and refuses one that lacks a row."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from eelbert_jax.datasets.tasks import GLUE_TASKS, REGRESS, Task
from eelbert_jax.errors import UserError

LOWEST_SCORE, HIGHEST_SCORE = 0.0, 5.0
"""The range of STS-B's scores; a regression may leave it."""

SUBMISSION_ROWS: Mapping[str, int] = MappingProxyType(
    {
        "CoLA.tsv": 1063,
        "SST-2.tsv": 1821,
        "MRPC.tsv": 1725,
        "STS-B.tsv": 1379,
        "QQP.tsv": 390_965,
        "MNLI-m.tsv": 9796,
        "MNLI-mm.tsv": 9847,
        "QNLI.tsv": 5463,
        "RTE.tsv": 3000,
        "WNLI.tsv": 146,
        "AX.tsv": 1104,
    }
)
"""The files of a complete submission with their numbers of rows. Source: GLUE's test splits."""


def write_submission(
    directory: str | Path, task: Task, split: str, ids: np.ndarray, predictions: np.ndarray
) -> Path:
    """Write one test split's integer classes or float scores [n], in the order of GLUE's index `ids` [n].

    Classes are spelled as the server wants them (numbers, but names for the inference tasks); scores are
    clipped to STS-B's range and have three decimals. Source: GLUE's sample submission.
    """
    name = submission_file(task, split)
    ids, predictions = np.asarray(ids), np.asarray(predictions)
    _check_rows(name, ids, predictions)
    order = np.argsort(ids)
    values = _scores(name, predictions) if task.kind == REGRESS else _classes(name, task, predictions)
    lines = ["index\tprediction", *(f"{ids[i]}\t{values[i]}" for i in order)]
    path = Path(directory) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}. Give another folder.") from error
    return path


def submission_file(task: Task, split: str) -> str:
    """Return the name that the server expects for a split."""
    files = dict(zip(task.test_splits, task.submission_files, strict=True))
    if not task.official or split not in files:
        raise UserError(
            f"The GLUE server takes no predictions for {task.name}, {split!r}; it takes those of "
            f"{', '.join(task.name for task in GLUE_TASKS.values() if task.submission_files)}, split "
            f"{', '.join(files) or 'test'}."
        )
    return files[split]


def _check_rows(name: str, ids: np.ndarray, predictions: np.ndarray) -> None:
    expected = SUBMISSION_ROWS[name]
    if ids.shape != (expected,) or predictions.shape != (expected,):
        raise UserError(
            f"{name} needs {expected} rows, got {ids.shape} ids and {predictions.shape} predictions; the "
            "server refuses an incomplete file. Predict the whole official test split."
        )
    if not np.array_equal(np.sort(ids), np.arange(expected)):
        raise UserError(
            f"The ids of {name} are not 0 to {expected - 1}, each once; take GLUE's own test file."
        )


def _scores(name: str, predictions: np.ndarray) -> list[str]:
    if not np.all(np.isfinite(predictions)):
        raise UserError(f"{name}: a score is not finite; the model is broken.")
    return [f"{score:.3f}" for score in np.clip(predictions, LOWEST_SCORE, HIGHEST_SCORE)]


def _classes(name: str, task: Task, predictions: np.ndarray) -> list[str]:
    if not np.issubdtype(predictions.dtype, np.integer):
        raise UserError(
            f"{name} needs class numbers, got {predictions.dtype}; take the argmax of the logits."
        )
    outside = (predictions < 0) | (predictions >= len(task.submission_labels))
    if np.any(outside):
        raise UserError(
            f"{name}: class {predictions[outside][0]} is none of {task.name}'s {len(task.submission_labels)}."
        )
    return [task.submission_labels[prediction] for prediction in predictions]
