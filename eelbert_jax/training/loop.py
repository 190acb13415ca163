"""The one loop: evaluate -> save -> next rows -> train -> report the step before.

Knows steps, not tasks: what a step does, where its rows come from and how to evaluate are passed in.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from eelbert_jax.errors import UserError
from eelbert_jax.training.state import TrainState
from eelbert_jax.training.writer import Writer


class NonFiniteLoss(RuntimeError):
    """A loss is NaN or infinite: training stops before anything poisoned is saved."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what; all durations in completed optimizer steps.

    Attributes:
      total_steps: the run ends here.
      steps_per_call: optimizer steps in one call of the training step.
      log_every_steps: report the mean training loss.
      eval_every_steps: evaluate; the first and the last step always are.
      checkpoint_every_steps: save; the last step always is.
      tokens_per_step: tokens that a step reads, for the throughput.
    """

    total_steps: int
    steps_per_call: int
    log_every_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    tokens_per_step: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 1:
                raise UserError(f"{field.name} must be at least 1, got {value}.")
            if field.name.endswith("_steps") and value % self.steps_per_call:
                raise UserError(
                    f"{field.name}={value} is no multiple of steps_per_call={self.steps_per_call}; "
                    "change one of them."
                )


class _Meter:
    """Collect the metrics of the steps since the last report."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, jax.Array]] = []
        self.started = time.monotonic()

    def report(self, step: int, tokens_per_step: int) -> dict[str, float]:
        """Return the means over the steps up to `step`; raise `NonFiniteLoss` unless every loss is finite."""
        host = jax.device_get(self.metrics)
        losses = np.concatenate([metrics["loss"] for metrics in host])
        if not np.all(np.isfinite(losses)):
            index = int(np.argmin(np.isfinite(losses)))
            raise NonFiniteLoss(
                f"The loss of step {step - len(losses) + 1 + index} is {losses[index]}; training stopped and "
                "nothing of it is saved. Resume from the last checkpoint with a lower opt.learning_rate."
            )
        return {
            "train_loss": float(np.mean(losses, dtype=np.float64)),
            "grad_norm": float(np.mean(np.concatenate([metrics["grad_norm"] for metrics in host]))),
            "tokens_per_second": len(losses) * tokens_per_step / (time.monotonic() - self.started),
        }


def run(
    state: TrainState,
    *,
    config: LoopConfig,
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    next_rows: Callable[[int], Any],
    evaluate: Callable[[TrainState], dict[str, float]],
    save: Callable[[TrainState], None],
    saved_step: int | None,
    writer: Writer,
) -> tuple[TrainState, dict[str, float]]:
    """Train from `state.step` to `config.total_steps`.

    On the CPU backend every call is waited for: dispatching ahead deadlocks virtual devices. Elsewhere one
    call is in flight while the rows of the next are read.

    Args:
      state: donated.
      config: when to do what.
      train_step: (state, rows of K steps) -> (state, metrics, each [K]).
      next_rows: step -> the device rows of the K steps after it; a pure function.
      evaluate: state -> held-out figures.
      save: writes a checkpoint.
      saved_step: step of the newest checkpoint, None if there is none.
      writer: where figures go.

    Returns:
      The last state and the last held-out figures.

    Raises:
      NonFiniteLoss: at the report, or before a save, that follows the step.
    """
    step = int(state.step)
    block = jax.default_backend() == "cpu"
    meter = _Meter()
    figures: dict[str, float] = {}

    def report() -> None:
        nonlocal meter
        if meter.metrics:
            values = meter.report(step, config.tokens_per_step)
            writer.scalars(step, values)
            writer.progress(
                step, f"loss {values['train_loss']:.4f}  {values['tokens_per_second']:,.0f} tokens/s"
            )
        meter = _Meter()

    while True:
        last = step == config.total_steps
        fresh = step != saved_step  # what a resumed run evaluated and saved at its first step stands already
        if last or (fresh and step % config.eval_every_steps == 0):
            report()
            figures = evaluate(state)
            writer.note(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
            if fresh:
                writer.scalars(step, figures)
        if fresh and (last or step % config.checkpoint_every_steps == 0):
            report()
            save(state)
        if last:
            return state, figures
        if not meter.metrics:
            meter = _Meter()  # evaluation and saving do not count as training time
        state, metrics = train_step(state, next_rows(step))
        if block:
            jax.block_until_ready(state)
        if step % config.log_every_steps == 0:
            report()
        meter.metrics.append(metrics)
        step += config.steps_per_call


def evaluate_rows(
    num_rows: int,
    batch_size: int,
    eval_batch: Callable[[np.ndarray, np.ndarray], tuple[jax.Array, ...]],
) -> dict[str, float]:
    """Evaluate rows 0..num_rows-1, every one counted: the last batch is padded with rows of weight 0.

    Args:
      num_rows: rows to evaluate.
      batch_size: rows a batch.
      eval_batch: (row indices int64 [B], weights float32 [B]) -> (loss sum, correct sum, weight sum).

    Returns:
      `heldout_loss` in nats a target, `heldout_accuracy`, `heldout_perplexity`.
    """
    totals = np.zeros(3)
    for start in range(0, num_rows, batch_size):
        indices = np.arange(start, start + batch_size)
        weights = (indices < num_rows).astype(np.float32)
        sums = jax.device_get(eval_batch(np.minimum(indices, num_rows - 1), weights))
        totals += np.asarray(sums, np.float64)
    loss, correct, weight = totals
    return {
        "heldout_loss": loss / weight,
        "heldout_accuracy": correct / weight,
        "heldout_perplexity": math.exp(min(loss / weight, 700.0)),
    }
