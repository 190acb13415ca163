"""Prepared rows from an object store, copied to this machine once and checked on the way.

Training reads a few hundred bytes at a time from all over the shards: tens of milliseconds each from a store.
So the shards of a split are copied whole when it is opened.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from eelbert_jax.corpus import storage
from eelbert_jax.errors import UserError

COPIES_AT_ONCE = 8
"""A connection to a store gives some tens of MB a second, a host's network a multiple."""
BLOCK_BYTES = 1 << 22


class Content(NamedTuple):
    """What the manifest says of a file; the SHA-256 is in hexadecimal."""

    sha256: str
    num_bytes: int


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/eelbert_jax/rows, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eelbert_jax" / "rows"


def local_copy(url: str, identity: bytes, files: Mapping[str, Content | None]) -> Path:
    """Return a folder here with some files of prepared rows, copied unless an earlier call did.

    The folder is named by the rows' manifest, so that rows prepared anew are not taken for the old ones. A
    file of another size was damaged since, and is copied anew; one without a content always.

    Raises:
      UserError: a file is missing or has another SHA-256, or there is no room for it.
    """
    folder = cache_folder() / hashlib.sha256(identity).hexdigest()[:16]
    with _alone_in(folder, url), ThreadPoolExecutor(COPIES_AT_ONCE) as pool:
        copies = [
            pool.submit(_copy, f"{url}/{name}", folder / name, content.sha256 if content else None)
            for name, content in files.items()
            if content is None or not _has_size(folder / name, content.num_bytes)
        ]
        for copy in copies:
            copy.result()
    return folder


def copy_again(url: str, folder: Path, name: str, sha256: str) -> None:
    """Replace a copy whose bytes are no longer those of the manifest; a second failure leaves none."""
    with _alone_in(folder, url):
        (folder / name).unlink(missing_ok=True)
        _copy(f"{url}/{name}", folder / name, sha256)


@contextlib.contextmanager
def _alone_in(folder: Path, url: str) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UserError(
            f"Cannot copy the rows of {url} to {folder}: {error.filename or ''} {error.strerror or error}. "
            "Mend that, or choose another place for copies by XDG_CACHE_HOME."
        ) from error


def _has_size(path: Path, num_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == num_bytes


def _copy(url: str, path: Path, sha256: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = storage.temporary_for(os.fspath(path))
    digest = hashlib.sha256()
    try:
        with storage.open_file(url) as source, open(temporary, "wb") as target:
            while block := source.read(BLOCK_BYTES):
                digest.update(block)
                target.write(block)
        if sha256 not in (None, digest.hexdigest()):
            raise UserError(
                f"{url} has SHA-256 {digest.hexdigest()}, the manifest says {sha256}. "
                "The file was changed after it was written; copy it again or prepare again."
            )
        storage.put(temporary, os.fspath(path))
    finally:
        temporary.unlink(missing_ok=True)
