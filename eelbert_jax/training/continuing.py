"""Whether the run in a workdir was begun with the settings that are asked for now."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from eelbert_jax.reporting.json_fields import read_json
from eelbert_jax.workdir import CONFIG_NAME


def changed_settings(config: ml_collections.ConfigDict, workdir: Path, free: Sequence[str]) -> list[str]:
    """Return a line a setting that is another than in the workdir's `config.json`: "seed: 0, now 5".

    What only one of the two has is passed over, as versions differ in what can be set. Source: ours.

    Args:
      config: asked for now.
      workdir: of the run.
      free: settings that may change within a run; "data." stands for all that begin so.

    Raises:
      UserError: the file cannot be read.
    """
    path = workdir / CONFIG_NAME
    if not path.is_file():
        return []
    before, now = _flat(read_json(path)), _flat(config.to_dict())
    return [
        f"{name}: {before[name]!r}, now {value!r}"
        for name, value in now.items()
        if name in before and before[name] != value and not _is_free(name, free)
    ]


def _is_free(name: str, free: Sequence[str]) -> bool:
    return any(name == one or (one.endswith(".") and name.startswith(one)) for one in free)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = list(value) if isinstance(value, tuple) else value
    return leaves
