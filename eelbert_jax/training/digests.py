"""The manifest of a checkpoint, size and sha256 of every file, and the choice of the newest good checkpoint.

Orbax restores a data file with a flipped bit without a word (measured: 3 of 3); the manifest notices.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Sequence

from etils import epath

from eelbert_jax import store

MANIFEST_NAME = "sha256.json"
COMMITTED_NAME = "commit_success.txt"
"""What is put last into a checkpoint in a store, which knows no rename; by Orbax, or as it does."""
SET_ASIDE = ".corrupt"
_BLOCK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Choice:
    """The newest good checkpoint's step, whether a manifest vouches for it, and by step what is wrong."""

    step: int | None
    is_verified: bool
    bad: dict[int, str]


def write_manifest(folder: epath.Path, items: Sequence[str]) -> None:
    """Flush every file of the items (folders) to the disk and record their sizes and digests.

    To be called before `folder` is committed, so that no committed checkpoint is without one.
    """
    files = {}
    for item in items:
        for path in files_of(folder / item):
            _flush(path)
            size, digest = _digest(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    manifest = folder / MANIFEST_NAME
    manifest.write_text(json.dumps({"files": files}, indent=1) + "\n")
    _flush(manifest)


def find_damage(folder: epath.Path) -> str | None:
    """Return what is wrong with a checkpoint that has a manifest, naming the first such file, or None."""
    try:
        files = json.loads((folder / MANIFEST_NAME).read_bytes())["files"]
        recorded = [(name, entry["bytes"], entry["sha256"]) for name, entry in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _raise_if_unanswered(folder, error)
        return f"{MANIFEST_NAME} cannot be read ({type(error).__name__}: {error})"
    if not recorded:
        return f"{MANIFEST_NAME} names no file"
    for name, size, digest in recorded:
        try:
            found_size, found_digest = _digest(folder / name)
        except FileNotFoundError:
            return f"{name}, which {MANIFEST_NAME} names, is missing"
        except (OSError, ValueError) as error:
            _raise_if_unanswered(folder, error)
            return f"{name} cannot be read ({error})"
        if found_size != size:
            return f"{name} has {found_size} bytes, {MANIFEST_NAME} says {size}"
        if found_digest != digest:
            return f"{name} has the sha256 {found_digest}, {MANIFEST_NAME} says {digest}"
    return None


def _raise_if_unanswered(folder: epath.Path, error: Exception) -> None:
    if store.is_url(folder) and store.says_nothing(error):
        raise error


def steps(directory: epath.Path) -> list[int]:
    """Return the committed steps, newest first; temporaries and what was set aside do not count."""
    names = (name for name, is_folder in listing(directory).items() if is_folder)
    found = (int(name) for name in names if name.isascii() and name.isdecimal())
    return sorted((step for step in found if is_committed(directory / str(step))), reverse=True)


def is_committed(folder: epath.Path) -> bool:
    """Whether the folder of a step is whole: here its name says so, in a store its last object."""
    return not store.is_url(folder) or COMMITTED_NAME in listing(folder)


def listing(folder: epath.Path) -> dict[str, bool]:
    """Return by name what lies in a folder, and whether it is one itself; {} where there is no folder."""
    if store.is_url(folder):
        return store.listing(str(folder))
    try:
        return {path.name: path.is_dir() for path in folder.iterdir()}
    except FileNotFoundError:
        return {}


def newest_good(directory: epath.Path, items: Sequence[str]) -> Choice:
    """Choose the newest checkpoint whose files are those of its manifest.

    Where there is none, the newest without a manifest that holds all items: an older version wrote it. Beside
    a good older checkpoint it is not trusted: its manifest got lost. Where another process saves (and
    deletes) meanwhile, the folder is looked at again.
    """
    while True:
        present = steps(directory)
        choice = _newest_good(directory, present, items)
        if not choice.bad or steps(directory) == present:
            return choice


def _newest_good(directory: epath.Path, present: list[int], items: Sequence[str]) -> Choice:
    bad: dict[int, str] = {}
    without: list[int] = []
    for step in present:
        folder = directory / str(step)
        found = listing(folder)
        missing = [item for item in items if not found.get(item)]
        if missing:
            bad[step] = f"{missing[0]}/ is missing"
        elif MANIFEST_NAME not in found:
            without.append(step)
            bad[step] = f"{MANIFEST_NAME} is missing"
        else:
            damage = find_damage(folder)
            if damage is None:
                return Choice(step, True, bad)
            bad[step] = damage
    if not without:
        return Choice(None, False, bad)
    return Choice(without[0], False, {step: damage for step, damage in bad.items() if step not in without})


def set_aside(folder: epath.Path) -> epath.Path:
    """Rename a damaged checkpoint to `STEP.corrupt`, or the next free name, and return the new path."""
    target, count = folder.with_name(f"{folder.name}{SET_ASIDE}"), 1
    while target.exists():
        count += 1
        target = folder.with_name(f"{folder.name}{SET_ASIDE}-{count}")
    if not store.is_url(folder):
        return folder.rename(target)
    store.move(str(folder), str(target))
    return target


def files_of(folder: epath.Path) -> Iterator[epath.Path]:
    """Yield every file below a folder."""
    for name, is_folder in sorted(listing(folder).items()):
        if is_folder:
            yield from files_of(folder / name)
        else:
            yield folder / name


def _digest(path: epath.Path) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()


def _flush(path: epath.Path) -> None:
    """Wait until a file of this machine is on its disk; an object store has it when it is written."""
    if store.is_url(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
