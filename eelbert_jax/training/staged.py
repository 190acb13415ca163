"""Checkpoints in a store that Orbax does not write to, by way of a folder of this machine.

Orbax (0.12) knows gs:// alone. For other stores it saves to a folder here; the files are put from there one
by one, the manifest of digests after them and the mark of the commit last. What lacks it is no checkpoint.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from eelbert_jax import lease, store
from eelbert_jax.errors import UserError
from eelbert_jax.training import digests

NATIVE_SCHEMES = ("gs://",)
"""Of stores that Orbax writes to by itself."""


def is_staged(directory: epath.Path) -> bool:
    """Return whether checkpoints of a directory take the way by a folder here."""
    return store.is_url(directory) and not str(directory).startswith(NATIVE_SCHEMES)


def _root() -> Path:
    """Return $XDG_CACHE_HOME/eelbert_jax/checkpoints, by default below ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eelbert_jax" / "checkpoints"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Checkpoints on their way to a store cannot lie in {root} ({error.strerror}): name another "
            "place by XDG_CACHE_HOME."
        ) from error
    return root


@contextlib.contextmanager
def local_copy(folder: epath.Path) -> Iterator[epath.Path]:
    """Yield a folder here that has the files of one in a store; a folder that Orbax reads as it is."""
    if not is_staged(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="read-", dir=_root()) as copy:
        for path in digests.files_of(folder):
            target = Path(copy) / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            with store.opened(str(path)) as (system, name):
                system.get_file(name, os.fspath(target))
        yield epath.Path(copy)


def make_folder(directory: epath.Path) -> epath.Path:
    """Make a folder here for the saves of a run, which works alone; remove those of its killed starts."""
    prefix = f"{hashlib.sha256(str(directory).encode()).hexdigest()[:16]}-"
    for left in _root().glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    return epath.Path(tempfile.mkdtemp(prefix=prefix, dir=_root()))


class StagedManager:
    """What `Checkpoints` uses of Orbax's manager, for a directory in a store.

    Args:
      inner: Orbax's manager of `folder`.
      keep, keep_every_steps: as Orbax has them; `inner` keeps one step.
    """

    def __init__(
        self, inner: Any, folder: epath.Path, directory: epath.Path, keep: int, keep_every_steps: int | None
    ) -> None:
        self._inner, self._folder, self._directory = inner, folder, directory
        self._keep, self._keep_every = keep, keep_every_steps
        self.reload, self.wait_until_finished = inner.reload, inner.wait_until_finished

    def all_steps(self) -> Sequence[int]:
        """Return the committed steps in the store."""
        return digests.steps(self._directory)

    def delete(self, step: int) -> None:
        """Remove a step from the store: the mark first, so that what a kill leaves is no checkpoint."""
        folder = str(self._directory / str(step))
        lease.make_certain(folder)
        with store.opened(folder) as (system, name):
            system.rm_file(f"{name}/{digests.COMMITTED_NAME}")
            system.rm(name, recursive=True)

    def save(self, step: int, **options: Any) -> None:
        """Begin to save to the folder here, in place of the step before."""
        for before in self._inner.all_steps():
            self._inner.delete(before)
        self._inner.save(step, **options)

    def put(self, saved: epath.Path, step: int, items: Sequence[str]) -> None:
        """Put a step that was saved to a folder here, commit it, and remove what need not be kept."""
        target = f"{self._directory}/{step}"
        for path in [file for item in items for file in digests.files_of(saved / item)]:
            lease.put(f"{target}/{path.relative_to(saved).as_posix()}", Path(path))
        lease.put(f"{target}/{digests.MANIFEST_NAME}", Path(saved / digests.MANIFEST_NAME))
        lease.put(f"{target}/{digests.COMMITTED_NAME}", b"")
        for old in self.all_steps()[self._keep :]:
            if not self._keep_every or old % self._keep_every:
                with contextlib.suppress(store.Unanswered):  # the next save tries again
                    self.delete(old)

    def close(self) -> None:
        """End Orbax's threads and remove the folder here."""
        self._inner.close()
        shutil.rmtree(self._folder, ignore_errors=True)
