"""The books of a preparation: a plan, a record a unit, and failures; here or in an object store.

The plan says what the bytes of the shards depend on, so that no folder mixes two preparations. A record is
written after its unit's shards and vouches for them. What cannot be read is an OSError.
"""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eelbert_jax.corpus import storage
from eelbert_jax.errors import UserError

PLAN_NAME = "plan.json"
UNIT_FOLDER = "units"
RECORD_SUFFIX, FAILURE_SUFFIX = ".json", ".failed"
VERSION_KEYS = ("format_version", "tokenizers")
"""Of a plan: what no setting decides. Other versions' plans may also lack keys, or have more."""
READERS = 16
"""Records read at once: a store takes tens of milliseconds for each."""


def write_json(path: str, value: dict[str, Any]) -> None:
    """Put a file in its place whole or not at all."""
    storage.write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def is_begun(directory: str) -> bool:
    """Return whether there is a plan, which vouches for the vocabulary beside it."""
    try:
        return PLAN_NAME in storage.names_in(directory)
    except OSError as error:
        raise UserError(f"Cannot read the workdir {directory}: {error.strerror or error}.") from error


def check_plan(directory: str, plan: dict[str, Any], is_done: bool) -> None:
    """Write the plan, or compare it with the one that is there; a difference is a `UserError`.

    Where all units are done, what only one plan has does not matter: versions of the program differ in it.
    """
    path = f"{directory}/{PLAN_NAME}"
    if not is_begun(directory):
        write_json(path, plan)
        return
    old = json.loads(storage.read_bytes(path))
    keys = [key for key in {**old, **plan} if old.get(key) != plan.get(key)]
    if is_done:
        keys = [key for key in keys if key.startswith("unit ") or (key in old and key in plan)]
    if keys:
        ours = [key for key in keys if key in VERSION_KEYS or (key in old) != (key in plan)]
        of_versions = [key for key in ours if not key.startswith("unit ")]
        keys = of_versions or keys
        shown = "; ".join(f"{key}: {old.get(key)} there, {plan.get(key)} now" for key in keys[:3])
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        if of_versions:
            raise UserError(
                f"{directory} was begun by another version of this program or of tokenizers ({shown}{more}), "
                "and its rows would not be these. Finish it with that version, or begin anew in another "
                "--workdir."
            )
        raise UserError(
            f"{directory} holds rows of another preparation ({shown}{more}). Use another --workdir, remove "
            "that one, or give the same input and settings again."
        )


def missing_units(directory: str, num_units: int) -> list[int]:
    """Return the numbers of the units without a record."""
    names = storage.names_in(f"{directory}/{UNIT_FOLDER}")
    return [number for number in range(num_units) if f"{number:06d}{RECORD_SUFFIX}" not in names]


def write_record(directory: str, number: int, record: dict[str, Any]) -> None:
    """Write the record of a unit whose shards are in their places."""
    write_json(_path(directory, number, RECORD_SUFFIX), record)


def read_records(directory: str, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return the records of some units, by number in their order."""
    paths = {number: _path(directory, number, RECORD_SUFFIX) for number in numbers}
    with ThreadPoolExecutor(READERS) as pool:
        contents = pool.map(storage.read_bytes, paths.values())
        return {number: json.loads(data) for number, data in zip(paths, contents, strict=True)}


def forget_unit(directory: str, number: int, record: dict[str, Any]) -> None:
    """Remove the record of a unit, then the shards that it vouched for."""
    storage.remove(_path(directory, number, RECORD_SUFFIX))
    for split in record["splits"].values():
        if split["shard"]:
            storage.remove(f"{directory}/{split['shard']['file']}")


def write_failure(directory: str, number: int, message: str) -> None:
    """Leave word of what is wrong with a unit."""
    data = message.encode("utf-8", "surrogateescape")
    storage.write_bytes(_path(directory, number, FAILURE_SUFFIX), data)


def read_failures(directory: str, numbers: Sequence[int]) -> dict[int, str]:
    """Return the failures among some units."""
    contents = {
        n: storage.read_bytes(_path(directory, n, FAILURE_SUFFIX)) for n in _failed(directory, numbers)
    }
    return {number: data.decode("utf-8", "surrogateescape") for number, data in contents.items()}


def forget_failures(directory: str, numbers: Sequence[int]) -> None:
    """Remove the failures of units that are to be tried again."""
    for number in _failed(directory, numbers):
        storage.remove(_path(directory, number, FAILURE_SUFFIX))


def _failed(directory: str, numbers: Sequence[int]) -> list[int]:
    names = storage.names_in(f"{directory}/{UNIT_FOLDER}")
    return [number for number in numbers if f"{number:06d}{FAILURE_SUFFIX}" in names]


def _path(directory: str, number: int, suffix: str) -> str:
    return f"{directory}/{UNIT_FOLDER}/{number:06d}{suffix}"
