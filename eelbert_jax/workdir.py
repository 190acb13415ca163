"""A job's folder: the names of its files; it can be written, nobody else works in it, its files are whole."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from eelbert_jax.errors import UserError

LOCK_NAME = ".lock"
CONFIG_NAME = "config.json"
RESULT_NAME = "result.json"
CHECKPOINTS_NAME = "checkpoints"


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Make `workdir` and keep a second process out of it until the block ends, however it ends.

    The lock is the kernel's, on an open file: a killed process leaves none behind. Source: ours.

    Raises:
      UserError: the folder cannot be made or written, or another process works in it.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK_NAME).open("w")
    except OSError as error:
        raise UserError(
            f"Cannot write to the workdir '{workdir}': {error.strerror or error}. "
            "Give a folder that you may write to: --workdir=DIR."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"Another process works in '{workdir}': wait for it, stop it, or take another --workdir."
            ) from error
        yield


def is_writable(workdir: Path) -> bool:
    """Whether `workdir`, made where it is missing, can be written: to know before long work, not after."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(workdir, os.W_OK)


def write_whole(path: Path, text: str) -> None:
    """Write `text` so that a kill leaves the old file or the new one, never a torn one.

    Raises:
      UserError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror or error}. Free space, or give another --workdir=DIR."
        ) from error
