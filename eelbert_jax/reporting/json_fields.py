"""Read a JSON object strictly: typed values, and errors that name file and key."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eelbert_jax.errors import UserError


class Fields:
    """Take typed values out of a JSON object; an error names file and key."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self._path, self._values, self._prefix = path, values, prefix

    def take(self, key: str, *kinds: type) -> Any:
        """Return a value of one of `kinds`; float takes integers too and has to be finite.

        Raises:
          UserError: the key is missing or its value is of another kind.
        """
        if key not in self._values:
            raise self.wrong(key, "is missing", kinds)
        value = self._values[key]
        legal = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, legal) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, f"is {value!r}", kinds)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(key, f"is {value!r}", kinds)
        return value

    def __contains__(self, key: str) -> bool:
        """Whether there is such a key."""
        return key in self._values

    def group(self, key: str) -> "Fields":
        """Return the object under `key`."""
        return Fields(self._path, self.take(key, dict), f"{self._prefix}{key}.")

    def numbers(self, key: str, kind: type) -> dict[str, Any]:
        """Return the object under `key`, whose values are all numbers of `kind`."""
        group = self.group(key)
        return {name: group.take(name, kind) for name in group._values}

    def wrong(self, key: str, what: str, kinds: Sequence[type]) -> UserError:
        """Return the error for `key`."""
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        return UserError(
            f"{self._path}: {self._prefix}{key} {what}, expected {wanted}. Run again with this version, or "
            "move the folder away."
        )
