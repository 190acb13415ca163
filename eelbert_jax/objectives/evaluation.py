"""Evaluation during fine-tuning: scores of the development splits, and which step was the best."""

from collections.abc import Callable
from typing import Any

from eelbert_jax.errors import UserError
from eelbert_jax.objectives.examples import Split
from eelbert_jax.objectives.task_data import Data
from eelbert_jax.training.state import TrainState


class Degenerate(UserError):
    """The model predicts one class for every example, and the config says to stop then."""


class Evaluation:
    """Evaluate on the development splits and remember the best step.

    The best step so far is read back from `metrics.jsonl`, so that a resumed run keeps it.

    Args:
      data: the task.
      answer: (parameters, split) -> what `data.scores` takes.
      records: of the steps that an earlier part of the run recorded.
      on_degenerate: "say" or "stop".
    """

    def __init__(
        self, data: Data, answer: Callable[[Any, Split], Any], records: list[dict], on_degenerate: str
    ) -> None:
        if on_degenerate not in ("say", "stop"):
            raise UserError(f"on_degenerate={on_degenerate!r} is not one of say, stop.")
        self._data = data
        self._answer = answer
        self._on_degenerate = on_degenerate
        self.selecting = f"dev_{data.task.metrics[0]}"
        self.best: dict[str, float] | None = None
        for record in records:
            if self.selecting in record:
                self._remember(record)

    def _remember(self, record: dict[str, float]) -> None:
        if record["step"] == 0:
            return  # untrained, and no candidate
        if self.best is None or record[self.selecting] > self.best[self.selecting]:
            self.best = record

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return the figures of this step: dev_METRIC, and of a second split dev_METRIC_mismatched.

        Beside them `degenerate`: 1 where every example of a split gets the same class, else 0.
        """
        figures: dict[str, float] = {}
        degenerate = False
        for number, (name_of_split, split) in enumerate(self._data.dev.items()):
            answers = self._answer(state.params, split)
            suffix = "" if number == 0 else "_" + name_of_split.removeprefix("dev_")
            scores = self._data.scores(answers, split)
            figures |= {f"dev_{name}{suffix}": value for name, value in scores.items()}
            degenerate |= self._data.is_degenerate(answers)
        step = int(state.step)
        if degenerate and step:
            text = f"step {step}: every development example gets the same class; nothing is learned yet."
            if self._on_degenerate == "stop":
                raise Degenerate(text + " Lower the rate, train longer, or set config.on_degenerate=say.")
            print(text, flush=True)
        figures["degenerate"] = float(degenerate)
        self._remember({"step": step, **figures})
        return figures
