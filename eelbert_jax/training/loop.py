"""The one loop: evaluate -> save -> next rows -> train -> report the step before.

Knows steps, not tasks: what a step does, where its rows come from and how to evaluate are passed in.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.errors import UserError
from eelbert_jax.training.state import TrainState
from eelbert_jax.training.writer import Writer


class NonFiniteLoss(UserError):
    """A loss, a gradient or a parameter is NaN or infinite: training stops before it is saved."""


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

    def __init__(self, started: float) -> None:
        self.metrics: list[dict[str, jax.Array]] = []
        self.started = started

    def report(self, step: int, tokens_per_step: int, ended: float) -> dict[str, float]:
        """Return the means over the steps up to `step`, which took until `ended`; all must be finite."""
        host = jax.device_get(self.metrics)
        losses, norms = (
            np.concatenate([metrics[name] for metrics in host]) for name in ("loss", "grad_norm")
        )
        sound = np.isfinite(losses) & np.isfinite(norms)
        if not np.all(sound):
            index = int(np.argmin(sound))
            raise NonFiniteLoss(
                f"Step {step - len(losses) + 1 + index} has the loss {losses[index]} and the gradient norm "
                f"{norms[index]}; training stopped and nothing from there on is saved. Resume from the last "
                "checkpoint with a lower --config.opt.learning_rate."
            )
        return {
            "train_loss": float(np.mean(losses, dtype=np.float64)),
            "grad_norm": float(np.mean(norms, dtype=np.float64)),
            "tokens_per_second": len(losses) * tokens_per_step / (ended - self.started),
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
    call is in flight while the rows of the next are read and sent.

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
    _check_start(step, config)
    block = jax.default_backend() == "cpu"
    meter = _Meter(time.monotonic())
    figures: dict[str, float] = {}
    in_flight: Any = None

    def report(ended: float) -> None:
        nonlocal meter
        if meter.metrics:
            values = meter.report(step, config.tokens_per_step, ended)
            writer.scalars(step, values)
            writer.progress(
                step, f"loss {values['train_loss']:.4f}  {values['tokens_per_second']:,.0f} tokens/s"
            )
        meter = _Meter(ended)

    while True:
        last = step == config.total_steps
        fresh = step != saved_step  # what a resumed run evaluated and saved at its first step stands already
        if last or (fresh and step % config.eval_every_steps == 0):
            report(time.monotonic())
            figures = evaluate(state)
            writer.note(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
            if fresh:
                writer.scalars(step, figures)
        if fresh and (last or step % config.checkpoint_every_steps == 0):
            report(time.monotonic())
            _check_finite(state, step)
            save(state)
        if last:
            return state, figures
        called = time.monotonic()
        if not meter.metrics:
            meter = _Meter(called)  # evaluation and saving do not count as training time
        state, metrics = train_step(state, next_rows(step))
        jax.block_until_ready(metrics if block else in_flight)
        in_flight = metrics
        if step % config.log_every_steps == 0:
            report(called)
        meter.metrics.append(metrics)
        step += config.steps_per_call


def _check_start(step: int, config: LoopConfig) -> None:
    """Refuse a state from which the loop could not end at `total_steps`."""
    if step > config.total_steps:
        raise UserError(
            f"The checkpoint is at step {step}, beyond total_steps={config.total_steps}: raise "
            "--config.total_steps, or take another --workdir."
        )
    if step % config.steps_per_call:
        raise UserError(
            f"The checkpoint's step {step} is no multiple of steps_per_call={config.steps_per_call}: set "
            "--config.steps_per_call to a divisor of it."
        )


def _check_finite(state: TrainState, step: int) -> None:
    """Refuse to save a state with a parameter that is no number; an update can overflow after its loss."""
    if not _all_finite(state.params):
        raise NonFiniteLoss(
            f"A parameter is not finite after step {step}; training stopped and this step is not saved. "
            "Resume from the last checkpoint with a lower --config.opt.learning_rate."
        )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


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
