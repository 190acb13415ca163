"""A job's folder: names of its files, whole writes, the lock, whose it is, and "is this the same run?"."""

import contextlib
import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eelbert_jax import lease, store
from eelbert_jax.errors import StoreAway, UserError

LOCK_NAME = ".lock"
JOB_NAME = ".job"
"""Says whose folder it is."""
CONFIG_NAME = "config.json"
RESULT_NAME = "result.json"
FIGURES_NAME = "figures.json"
"""Of a distillation of vectors: those of its last step, written when it is done."""
DROPPED_NAME = "dropped.json"
"""Beside a model that lost layers: which."""
DETAILS_NAME = "details.json"
"""Where a model errs, by development split."""
PREDICTIONS_NAME = "predictions"
METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"
VOCABULARY_NAME = "vocab.txt"
TOKENIZER_NAME = "tokenizer.json"
"""In its place where an imported encoder reads no WordPiece."""
CHECKPOINTS_NAME = "checkpoints"
BEST_NAME = "best"
"""Beside the checkpoints to resume from: the best step, to use."""
MANIFEST_NAME = "manifest.json"
"""Of prepared rows."""
VECTORS_NAME = "vectors"
"""Of a teacher, one file a shard."""
LOG_NAME = "log.txt"
ONNX_NAME = "onnx"
"""Of an export: its graphs."""
ANSWERING_NAME = "model.py"
"""Of an export: answers without this package."""
CARD_NAME = "README.md"
"""Of an export: what the model is, from its own record."""
CHECKSUMS_NAME = "checksums.json"
"""Of an export: SHA-256 by file."""
INDEX_NAME = ".eelbert-index.safetensors"
"""In a folder of text that was searched: passages and their vectors."""
PACKED_NAME = "model.int8.safetensors"
"""Of an export: int8 weights and what they are of."""
SWEEP_NAME = "sweep.json"
PARETO_NAME = "pareto"
"""Stem of the table, CSV and picture of bytes against score."""
REPORT_NAME = "report.md"


@contextlib.contextmanager
def locked(workdir: Path, job: str | None = None) -> Iterator[None]:
    """Make `workdir` and keep a second process out of it until the block ends, however it ends.

    With `job` it is claimed as well. The lock is the kernel's, on an open file: a killed process leaves none
    behind. In a store it is a lease.
    """
    if store.is_url(workdir):
        with store.explained(workdir), lease.leased(str(workdir)):
            if job is not None:
                claim(workdir, job)
            yield
        return
    make_writable(workdir)
    with _told(workdir):
        file = (workdir / LOCK_NAME).open("w")
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another process works in '{workdir}': wait for it, stop it, or take another --workdir."
            ) from error
        if job is not None:
            claim(workdir, job)
        yield


def claim(workdir: Path, job: str) -> None:
    """Make `workdir` and mark it as the job's own, or raise a `UserError` where it holds files of another."""
    make_writable(workdir)
    with store.explained(workdir), _told(workdir):
        whose = _whose(workdir)
    if whose not in (None, job):
        raise UserError(f"'{workdir}' holds files of {whose}: give {job} another --workdir=DIR.")
    write_whole(workdir / JOB_NAME, f"{job}\n")


def _whose(workdir: Path) -> str | None:
    """Return the job that the files of a folder are of, or "transformers"; None where nothing says."""
    names = store.listing(str(workdir)) if store.is_url(workdir) else os.listdir(workdir)
    if all(name.startswith(".") for name in names):  # what failed before its first file claims nothing
        return None
    if JOB_NAME in names:
        return (workdir / JOB_NAME).read_text(encoding="utf-8").strip()
    saved = CONFIG_NAME in names and "model_type" in read_json(workdir / CONFIG_NAME)
    return "transformers" if saved else None


def make_writable(workdir: Path) -> None:
    """Make `workdir` where it is missing: to know before long work, not after, that it can be written."""
    if store.is_url(workdir):
        return  # a store knows no folders; whether it can be written is known once the run has its lease
    with _told(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        if not os.access(workdir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextlib.contextmanager
def _told(workdir: Path) -> Iterator[None]:
    """Turn what the system refuses in a folder here into one line."""
    try:
        yield
    except OSError as error:
        if store.is_url(workdir):
            raise
        raise UserError(
            f"Cannot write to the workdir '{workdir}': {error.strerror or error}. "
            "Give a folder that you may write to: --workdir=DIR."
        ) from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write `content` so that a kill leaves the old file or the new one, never a torn one."""
    if store.is_url(path):
        _put(str(path), content.encode() if isinstance(content, str) else content)
        return
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # of no other process, on any machine
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free space, or give another --workdir=DIR."
        ) from error


def _put(url: str, content: bytes) -> None:
    try:
        lease.put(url, content)
    except store.Unanswered as error:
        raise StoreAway(
            f"Cannot write {url}: {error.strerror}. The same command goes on from there."
        ) from error
    except OSError as error:
        raise UserError(f"Cannot write {url}: {error.strerror}. Or give another --workdir=DIR.") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}). Run again, or move the folder away."
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object. Run again, or move the folder away.")
    return value


def changed_settings(config: Mapping[str, Any], workdir: Path, free: Sequence[str]) -> list[str]:
    """Return a line a setting that is another than in the workdir's `config.json`: "seed: 0, now 5".

    What only one of the two has is passed over, as versions differ in what can be set.

    Args:
      config: nested, asked for now.
      free: settings that may change within a run; "data." stands for all that begin so.
    """
    path = workdir / CONFIG_NAME
    if not path.is_file():
        return []
    before, now = _flat(read_json(path)), _flat(config)
    return [
        f"{name}: {before[name]!r}, now {value!r}"
        for name, value in now.items()
        if name in before and before[name] != value and not _is_free(name, free)
    ]


def _is_free(name: str, free: Sequence[str]) -> bool:
    return any(name == one or (one.endswith(".") and name.startswith(one)) for one in free)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = list(value) if isinstance(value, tuple) else value
    return leaves
