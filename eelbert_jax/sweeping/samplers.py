"""Which cells of a grid to run, and in which order: all of them, or those that Optuna finds promising."""

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from eelbert_jax.errors import UserError
from eelbert_jax.sweeping.grid import Cell, Result


class Sampler(Protocol):
    """Asked for a cell whenever there is a free place, told what has become of it."""

    def ask(self) -> Cell | None:
        """Return the next cell, None where there is none left."""

    def tell(self, cell: Cell, result: Result | None) -> None:
        """Take note of a cell's result; None: it failed."""


class GridSampler:
    """Every cell once, in the order of the grid."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._cells = iter(cells)

    def ask(self) -> Cell | None:
        """Return the next cell, None where there is none left."""
        return next(self._cells, None)

    def tell(self, cell: Cell, result: Result | None) -> None:
        """Take no note: the grid is run whatever comes out."""


class OptunaSampler:
    """The cells that Optuna's tree-structured Parzen estimator picks from a full grid.

    Nothing of it is saved: the estimator is seeded and finished cells answer at once, so that a sweep
    continued after a kill comes by the same way to where it was.

    Args:
      cells: every combination of the values of their keys.
      trials: how often to pick; a cell picked twice is not run twice.
      larger_is_better: of the main figure.

    Raises:
      UserError: Optuna is not installed, or the grid is not full.
    """

    def __init__(self, cells: Sequence[Cell], trials: int, *, larger_is_better: bool) -> None:
        try:
            self._optuna: Any = importlib.import_module("optuna")
        except ImportError as error:
            raise UserError("--sampler=optuna needs Optuna: pip install optuna; or take the grid.") from error
        values = {
            key: list(dict.fromkeys(cell.overrides.get(key) for cell in cells)) for key in cells[0].overrides
        }
        self._cells = {tuple(cell.overrides.items()): cell for cell in cells}
        size = 1
        for choices in values.values():
            size *= len(choices)
        if size != len(cells) or any(list(cell.overrides) != list(values) for cell in cells):
            raise UserError(
                f"Optuna picks from a full grid: each of the {len(cells)} cells has to set "
                f"{', '.join(values)}, and all {size} combinations have to be there. Use --sampler=grid."
            )
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._distributions = {
            key: self._optuna.distributions.CategoricalDistribution(choices)
            for key, choices in values.items()
        }
        self._study = self._optuna.create_study(
            direction="maximize" if larger_is_better else "minimize",
            sampler=self._optuna.samplers.TPESampler(seed=0, constant_liar=True),
        )
        self._left = trials
        self._open: dict[str, Any] = {}

    def ask(self) -> Cell | None:
        """Return the next cell, None where there is none left."""
        while self._left:
            self._left -= 1
            trial = self._study.ask(self._distributions)
            cell = self._cells[tuple((key, trial.params[key]) for key in self._distributions)]
            if cell.name not in self._open:
                self._open[cell.name] = trial
                return cell
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # it runs right now
        return None

    def tell(self, cell: Cell, result: Result | None) -> None:
        """Take note of a cell's result; None: it failed."""
        trial = self._open.pop(cell.name)
        if result is None:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, result.value)
