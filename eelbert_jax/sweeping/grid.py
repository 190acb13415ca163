"""The cells of a sweep: which there are, how each is called and run, and what it has come to.

A sweep's config file holds `get_config` and `sweep(add)`, which calls `add` once a cell with its overrides:
`add(**{"config.seed": 1})`; `sweep(add, config)` also sees the config with the overrides of the command line.
Leaves starting processes to `processes` and choosing among the cells to `sweep`.
"""

import dataclasses
import hashlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import config_dict

from eelbert_jax import cli
from eelbert_jax.config_files import load_config_module
from eelbert_jax.errors import UserError
from eelbert_jax.training.writer import read_metrics
from eelbert_jax.workdir import CHECKPOINTS_NAME, CONFIG_NAME, METRICS_NAME, RESULT_NAME

LONGEST_NAME = 100
"""Characters; file systems take 255, people and tables fewer."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid.

    Attributes:
      name: of its folder; short, unique in the grid and a function of its overrides alone.
      overrides: what the grid sets, by the config's dotted keys.
      job: "pretrain" or "finetune".
      words: what follows `eelbert JOB`, the workdir included.
      workdir: folder of the run.
      config: resolved.
    """

    name: str
    overrides: Mapping[str, Any]
    job: str
    words: tuple[str, ...]
    workdir: Path
    config: config_dict.ConfigDict

    @property
    def command(self) -> tuple[str, ...]:
        """The words of the process that runs the cell."""
        return (sys.executable, "-m", "eelbert_jax", self.job, *self.words)


class Result(NamedTuple):
    """What a finished cell has come to.

    Attributes:
      figures: columns of the table.
      main: name of the figure that the cell is judged by.
    """

    figures: dict[str, Any]
    main: str

    @property
    def value(self) -> float:
        """The figure that the cell is judged by."""
        return float(self.figures[self.main])


class SweptJob(NamedTuple):
    """A job that a sweep can run.

    Attributes:
      read: (workdir, resolved config) -> what a finished run has come to; None where it is not finished.
      larger_is_better: of the main figure.
    """

    read: Callable[[Path, config_dict.ConfigDict], Result | None]
    larger_is_better: bool


def pretrain_result(workdir: Path, config: config_dict.ConfigDict) -> Result | None:
    """Read a pre-training: finished when its last step is evaluated, in `metrics.jsonl`, and then saved."""
    if not (workdir / CHECKPOINTS_NAME / str(config.total_steps)).is_dir():
        return None
    path = workdir / METRICS_NAME
    records = read_metrics(path) if path.is_file() else []
    for record in reversed(records):
        if record["step"] == config.total_steps and "heldout_loss" in record:
            return Result(record, "heldout_loss")
    return None


def finetune_result(workdir: Path, config: config_dict.ConfigDict) -> Result | None:
    """Read a fine-tuning: finished when `result.json`, written last, is whole."""
    path = workdir / RESULT_NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:  # a kill in the middle of writing
        return None
    facts = {name: record[name] for name in ("best_step", "total_steps", "degenerate", "seconds")}
    return Result({**record["metrics"], **facts}, next(iter(record["metrics"])))


SWEPT_JOBS: Mapping[str, SweptJob] = MappingProxyType(
    {
        "pretrain": SweptJob(pretrain_result, larger_is_better=False),
        "finetune": SweptJob(finetune_result, larger_is_better=True),
    }
)


def read_result(cell: Cell) -> Result | None:
    """Return what a cell has come to, None where it has to run, from the start or on.

    Raises:
      UserError: its folder holds a finished run of another config, which neither counts nor is overwritten.
    """
    result = SWEPT_JOBS[cell.job].read(cell.workdir, cell.config)
    path = cell.workdir / CONFIG_NAME
    if result is None or not path.is_file():
        return result
    saved = _flat(json.loads(path.read_text(encoding="utf-8")))
    wanted = _flat(json.loads(json.dumps(cell.config.to_dict())))
    other = [name for name in wanted if name in saved and saved[name] != wanted[name]]
    if other:
        lines = [f"  {name}: finished with {saved[name]!r}, wanted {wanted[name]!r}" for name in other]
        raise UserError(
            f"{cell.workdir} holds a finished run of another config:\n"
            + "\n".join(lines)
            + "\nUse another --workdir for this sweep, or remove that folder."
        )
    return result


def plan(job: str, argv: list[str], workdir: str | Path) -> list[Cell]:
    """Return the cells of the grid that a command line of `eelbert sweep` names, all of them checked.

    Args:
      job: "pretrain", "finetune", or "" for what the config file says.
      argv: the words after `eelbert sweep`; the overrides among them hold for every cell.
      workdir: folder of the cells' folders.

    Raises:
      UserError: no grid, a cell twice, or overrides that do not fit the config.
    """
    config_file, common = cli.config_words("sweep", argv)
    assert config_file is not None  # the job has a default
    module = load_config_module(config_file.partition(":")[0])
    job = job or getattr(module, "JOB", "pretrain")
    if job not in SWEPT_JOBS:
        raise UserError(f"--job={job!r} cannot be swept; known: {', '.join(SWEPT_JOBS)}.")
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
        own = [f"--config.{key}={value}" for key, value in overrides.items()]
        words = (f"--config={config_file}", *common, *own, f"--workdir={Path(workdir) / name}")
        resolved = cli.parse(job, list(words)).config
        cells[name] = Cell(name, overrides, job, words, Path(workdir) / name, resolved)
    return list(cells.values())


def short_names(config: config_dict.ConfigDict) -> dict[str, str]:
    """Return for each dotted key the shortest end of it that no other key has: model.hash.base -> base.

    A function of the config and not of the grid, so that a longer grid does not rename old cells.
    """
    keys = list(cli.config_keys(config))
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts))]
        alone = (e for e in ends if not any(k != key and (k == e or k.endswith("." + e)) for k in keys))
        names[key] = next(alone, key)
    return names


def cell_name(overrides: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return KEY=VALUE,KEY=VALUE with the short names, fit for a folder.

    Where that loses something (a slash in a value, too many characters), eight hex digits tell cells apart.
    """
    exact = ",".join(f"{names[key]}={value}" for key, value in overrides.items())
    safe = re.sub(r"[^\w.,=+-]", "-", exact, flags=re.ASCII)
    if safe == exact and len(safe) <= LONGEST_NAME:
        return safe
    digest = hashlib.sha256(exact.encode()).hexdigest()[:8]
    return f"{safe[: LONGEST_NAME - 9]}-{digest}"


def _grid(module: Any, config_file: str, config: config_dict.ConfigDict) -> Sequence[dict[str, Any]]:
    """Call the file's `sweep` and return the overrides of its cells, by dotted keys."""
    sweep = getattr(module, "sweep", None)
    if not callable(sweep):
        raise UserError(f"{config_file} has no function sweep(add); a sweep's config file must define one.")
    known = cli.config_keys(config)
    grid: list[dict[str, Any]] = []

    def add(**overrides: Any) -> None:
        keys = [name.removeprefix("config.") for name in overrides]
        strange = [
            name
            for name, key in zip(overrides, keys, strict=True)
            if key not in known or not name.startswith("config.")
        ]
        if strange or not overrides:
            raise UserError(
                f"The grid of {config_file} adds a cell with {', '.join(strange) or 'no override'}; "
                "a cell's overrides are named config.KEY, with keys that the config has."
            )
        grid.append(dict(zip(keys, overrides.values(), strict=True)))

    sweep(*(add, config)[: len(inspect.signature(sweep).parameters)])
    if not grid:
        raise UserError(f"The grid of {config_file} has no cell.")
    return grid


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
