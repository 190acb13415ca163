"""A file that only grows, in an object store: numbered objects that are read one after the other."""

import os
import re
import time
from pathlib import Path

from eelbert_jax.lease import PATIENCE_SECONDS, put
from eelbert_jax.store import Unanswered, folder, is_url, listing

PART_SECONDS = 10.0
"""What was written to a file that grows is put into the store at most so often."""
PART_BYTES = 1 << 20


class Parts:
    """A file that only grows, as objects NAME.000001, NAME.000002, ... that are read one after the other.

    The newest is put anew, whole, as it grows. A later start of the run begins a part of its own. A kill
    loses what was written since the last `sync` or `flush` that was due, `PART_SECONDS` after the one before.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        earlier = find_parts(folder(path))
        self._number = int(earlier[-1].name[-6:]) + 1 if earlier else 1
        self._content, self._size = bytearray(), 0
        self._due, self._answered = 0.0, time.monotonic()

    def write(self, data: bytes) -> None:
        """Add to the file, here."""
        self._content += data

    def flush(self) -> None:
        """Put what was added into the store if it is time; where that fails, at a later time."""
        if time.monotonic() < self._due:
            return
        try:
            self.sync(patience=0.0)
        except Unanswered:
            if time.monotonic() - self._answered > PATIENCE_SECONDS:
                raise
            self._due = time.monotonic() + PART_SECONDS

    def sync(self, patience: float | None = None) -> None:
        """Put what was added into the store."""
        if len(self._content) > self._size:
            put(f"{self._path}.{self._number:06d}", bytes(self._content), patience)
            self._size = len(self._content)
            if self._size >= PART_BYTES:
                self._number += 1
                self._content, self._size = bytearray(), 0
        self._answered = time.monotonic()
        self._due = self._answered + PART_SECONDS

    def close(self) -> None:
        """Put what is left into the store."""
        self.sync()


def find_parts(path: Path) -> list[Path]:
    """Return the parts of a file that grows, in order; none where there is no such file."""
    if is_url(path):
        names = list(listing(str(path.parent)))
    else:
        names = os.listdir(path.parent) if path.parent.is_dir() else []
    pattern = re.compile(re.escape(path.name) + r"\.[0-9]{6}")
    return [path.with_name(name) for name in sorted(filter(pattern.fullmatch, names))]
