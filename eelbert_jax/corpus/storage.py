"""Files by path or by URL, so that text and rows in an object store are used like those on this machine.

A name with "://" belongs to fsspec. A store is used for no more than all have: read a range, list, and put an
object whole. What fails is an OSError, whatever the library raises.
"""

import contextlib
import glob
import io
import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from eelbert_jax import workdir
from eelbert_jax.errors import UserError
from eelbert_jax.store import failures_of, is_url, listing, opened

BUFFER_BYTES = 1 << 20
LOCAL_SCHEME = "file://"
VERSION_FIELDS = (
    *("md5Hash", "content_md5", "ETag", "etag", "crc32c", "checksum"),
    *("mtime", "LastModified", "last_modified", "created"),
)
"""What stores list that changes with the content of an object, the surest first."""


class FoundFile(NamedTuple):
    """A file; `version` changes when its content does: a checksum or a time."""

    path: str
    num_bytes: int
    version: str


def canonical(path: str | os.PathLike[str]) -> str:
    """Return a URL as it is, and the path of a file here without file:// and with the home folder."""
    name = os.fspath(path).removeprefix(LOCAL_SCHEME)
    return name if is_url(name) else os.path.expanduser(name)


def find_files(pattern: str) -> list[FoundFile]:
    """Return the files that match a glob, by name; a bracket stands for itself where nothing matches."""
    if os.path.isfile(pattern):
        return [_local_file(pattern)]
    return _match(pattern) or (_match(pattern.replace("[", "[[]")) if "[" in pattern else [])


def _match(pattern: str) -> list[FoundFile]:
    if not is_url(pattern):
        paths = (path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
        return sorted(map(_local_file, paths))
    with opened(pattern) as (system, path):
        found = system.glob(path, detail=True).values()
        files = [entry for entry in found if entry["type"] == "file"]
        return sorted(
            FoundFile(system.unstrip_protocol(file["name"]), file["size"], _version(file)) for file in files
        )


def _local_file(path: str) -> FoundFile:
    status = os.stat(path)
    return FoundFile(path, status.st_size, str(status.st_mtime_ns))


def _version(entry: Mapping[str, Any]) -> str:
    return next((str(entry[field]) for field in VERSION_FIELDS if entry.get(field)), "")


def is_folder(path: str) -> bool:
    """Return whether there is a folder, or in a store an object below the name."""
    if not is_url(path):
        return os.path.isdir(path)
    with opened(path) as (system, name):
        return bool(system.isdir(name))


def names_in(folder: str) -> set[str]:
    """Return the names in a folder, none where there is no such folder."""
    if is_url(folder):
        return set(listing(folder))
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


def open_file(path: str) -> io.BufferedReader:
    """Open a file for reading bytes from any place."""
    if not is_url(path):
        return open(path, "rb")
    with opened(path) as (system, name):
        return io.BufferedReader(_StoredFile(system.open(name, "rb"), path), BUFFER_BYTES)


def read_bytes(path: str) -> bytes:
    """Return the content of a small file."""
    with open_file(path) as file:
        return file.read()


def write_bytes(path: str, data: bytes) -> None:
    """Put a small file in its place whole or not at all; what cannot be written is a `UserError`."""
    if not is_url(path):
        workdir.write_whole(Path(path), data)
        return
    try:
        with opened(path) as (system, name):
            system.pipe_file(name, data)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}. Or give another --workdir.") from error


def temporary_for(path: str) -> Path:
    """Return a place that no other process has: beside a file, for a URL in the system's folder."""
    folder = Path(tempfile.gettempdir()) if is_url(path) else Path(path).parent
    return folder / f"{path.rsplit('/', 1)[-1]}.{uuid.uuid4().hex}.tmp"


def put(temporary: Path, path: str) -> None:
    """Move a file from `temporary_for` to its place, whole and durably; what was there is replaced."""
    if is_url(path):
        with opened(path) as (system, name):
            system.put_file(os.fspath(temporary), name)
        temporary.unlink()
        return
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        if not is_url(path):
            os.remove(path)
            return
        with opened(path) as (system, name):
            system.rm_file(name)


class _StoredFile(io.RawIOBase):
    def __init__(self, file: Any, url: str):
        super().__init__()
        self._file = file
        self._url = url

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with failures_of(self._url):
            data = cast(bytes, self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with failures_of(self._url):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
