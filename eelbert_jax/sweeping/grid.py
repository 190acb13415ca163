"""The cells of a sweep: which there are, and how each is called.

`sweep(add)` or `sweep(add, config)` of a config file calls `add(**{"config.seed": 1})` once a cell.
"""

import dataclasses
import hashlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eelbert_jax import cli
from eelbert_jax.config_files import config_keys, load_config_module
from eelbert_jax.errors import UserError
from eelbert_jax.store import folder as folder_of
from eelbert_jax.store import is_url

LONGEST_NAME = 100
"""Characters; file systems take 255, people and tables fewer."""
JOBS = ("pretrain", "distill", "finetune")

Config = Any
"""An `ml_collections.ConfigDict`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """Hold one point of the grid; the name is a function of its overrides alone.

    `overrides` go by the config's dotted keys; `words` follow `eelbert JOB`.
    """

    name: str
    overrides: Mapping[str, Any]
    job: str
    words: tuple[str, ...]
    workdir: Path
    config: Config

    @property
    def logs(self) -> Path:
        """The cell's own folder; of one in a store, which cannot append, a folder below the current one."""
        return Path("logs", self.workdir.parent.name, self.name) if is_url(self.workdir) else self.workdir

    @property
    def command(self) -> tuple[str, ...]:
        """The words of the process that runs the cell."""
        return (sys.executable, "-m", "eelbert_jax", self.job, *self.words)


def plan(job: str, argv: list[str], workdir: str | Path) -> list[Cell]:
    """Return the cells of the grid that the words after `eelbert sweep` name, all of them checked.

    Overrides among the words hold for every cell; `job` "" leaves it to the config file.
    """
    config_file, common = cli.config_words("sweep", argv)
    assert config_file is not None  # the job has a default
    module = load_config_module(config_file.partition(":")[0])
    job = job or getattr(module, "JOB", "pretrain")
    if job not in JOBS:
        raise UserError(f"--job={job!r} cannot be swept; known: {', '.join(JOBS)}.")
    config = cli.parse("sweep", argv).config
    names = short_names(config)
    given = {word.partition("=")[0].lstrip("-").removeprefix("no") for word in common}
    cells: dict[str, Cell] = {}
    for overrides in _grid(module, config_file, config):
        both = given & {f"config.{key}" for key in overrides}
        if both:
            raise UserError(
                f"The grid of {config_file} varies {', '.join(sorted(both))}; leave it off the command line."
            )
        name = cell_name(overrides, names)
        if name in cells:
            raise UserError(f"The grid of {config_file} has the cell {name} twice.")
        own, folder = _override_words(overrides, config, config_file), folder_of(workdir) / name
        words = (f"--config={config_file}", *common, *own, f"--workdir={folder}")
        cells[name] = Cell(name, overrides, job, words, folder, cli.parse(job, list(words)).config)
    return list(cells.values())


def _override_words(overrides: Mapping[str, Any], config: Config, config_file: str) -> list[str]:
    """Return the words that set what a cell overrides; None leaves empty what the config leaves empty."""
    words = []
    for key, value in overrides.items():
        current = config
        for part in key.split("."):
            current = current[part]
        if value is not None:
            words.append(f"--config.{key}={value}")
        elif current is not None:
            raise UserError(
                f"The grid of {config_file} sets {key} to None, but the config has {current!r} there, and a "
                "command line cannot empty it: let get_config leave it empty, and let the grid set the value."
            )
    return words


def short_names(config: Config) -> dict[str, str]:
    """Return the shortest end of each dotted key that no other key has: model.hash.base -> base.

    A function of the config and not of the grid, so that a longer grid does not rename old cells.
    """
    keys = list(config_keys(config))
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts))]
        alone = (e for e in ends if not any(k != key and (k == e or k.endswith("." + e)) for k in keys))
        names[key] = next(alone, key)
    return names


def cell_name(overrides: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return KEY=VALUE,KEY=VALUE fit for a folder, with eight hex digits where that loses something."""
    exact = ",".join(f"{names[key]}={value}" for key, value in overrides.items())
    safe = re.sub(r"[^\w.,=+-]", "-", exact, flags=re.ASCII)
    if safe == exact and len(safe) <= LONGEST_NAME:
        return safe
    digest = hashlib.sha256(exact.encode()).hexdigest()[:8]
    return f"{safe[: LONGEST_NAME - 9]}-{digest}"


def _grid(module: Any, config_file: str, config: Config) -> Sequence[dict[str, Any]]:
    sweep = getattr(module, "sweep", None)
    if not callable(sweep):
        raise UserError(f"{config_file} has no function sweep(add); a sweep's config file must define one.")
    known = config_keys(config)
    grid: list[dict[str, Any]] = []

    def add(**overrides: Any) -> None:
        strange = [
            name
            for name in overrides
            if not name.startswith("config.") or name.removeprefix("config.") not in known
        ]
        if strange or not overrides:
            raise UserError(
                f"The grid of {config_file} adds a cell with {', '.join(strange) or 'no override'}; "
                "a cell's overrides are named config.KEY, with keys that the config has."
            )
        grid.append({name.removeprefix("config."): value for name, value in overrides.items()})

    sweep(*(add, config)[: len(inspect.signature(sweep).parameters)])
    if not grid:
        raise UserError(f"The grid of {config_file} has no cell.")
    return grid
