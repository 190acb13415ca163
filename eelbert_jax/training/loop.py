"""The one loop: evaluate -> save -> next rows -> train -> report the step before."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.errors import Preempted, UserError
from eelbert_jax.training.step import TrainState
from eelbert_jax.training.supervision import Goodput, Supervision
from eelbert_jax.training.writer import Writer


class NonFiniteLoss(UserError):
    """Too many losses or gradients in a row, or a parameter, are NaN or infinite: training stops unsaved."""


DURATIONS = ("total_steps", "log_every_steps", "eval_every_steps", "checkpoint_every_steps")
"""Fields of `LoopConfig` that have to be multiples of `steps_per_call`."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When the loop does what, in completed steps; the first and the last are evaluated, the last is saved.

    Attributes:
      total_steps: the run ends here; 0 only evaluates.
      tokens_per_step: tokens that a step reads, for the throughput.
      max_skipped_steps: so many steps in a row with a loss or gradient that is not finite end the run.
    """

    total_steps: int
    steps_per_call: int
    log_every_steps: int
    eval_every_steps: int
    checkpoint_every_steps: int
    tokens_per_step: int
    max_skipped_steps: int

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "total_steps" else 1
            if value < least:
                raise UserError(f"{field.name} must be at least {least}, got {value}.")
            if field.name in DURATIONS and value % self.steps_per_call:
                raise UserError(
                    f"{field.name}={value} is no multiple of steps_per_call={self.steps_per_call}; "
                    "change one of them."
                )


class _Meter:
    """Collect and report the metrics of steps, and count skipped steps in a row."""

    def __init__(
        self, config: LoopConfig, learning_rate: Callable[[int], Any], writer: Writer, clock: Goodput
    ) -> None:
        self._config = config
        self._learning_rate = learning_rate
        self._writer = writer
        self._clock = clock
        self.metrics: list[dict[str, jax.Array]] = []
        self.started = time.monotonic()
        self._in_a_row = 0

    def restart(self, started: float) -> None:
        self.metrics = []
        self.started = started

    def report(self, step: int, ended: float) -> None:
        """Report the steps since the last report, of which `step` is the last and took until `ended`."""
        if self.metrics:
            values = self._means(step, ended)
            self._writer.scalars(step, values | self._clock.seconds())
            loss = f"loss {values['train_loss']:.4f}  " if "train_loss" in values else ""
            self._writer.progress(step, f"{loss}{values['tokens_per_second']:,.0f} tokens/s")
            if values["skipped_steps"]:
                self._writer.note(f"step {step}  {values['skipped_steps']:.0f} steps skipped: not finite")
        self.restart(ended)

    def _means(self, step: int, ended: float) -> dict[str, float]:
        """Return the means over the sound steps."""
        host = jax.device_get(self.metrics)
        losses, norms, skipped = (
            np.concatenate([metrics[name] for metrics in host]) for name in ("loss", "grad_norm", "skipped")
        )
        for index in range(len(losses)):
            self._in_a_row = self._in_a_row + 1 if skipped[index] else 0
            if self._in_a_row >= self._config.max_skipped_steps:
                raise NonFiniteLoss(
                    f"Step {step - len(losses) + 1 + index} has the loss {losses[index]} and the gradient "
                    f"norm {norms[index]}, as the {self._in_a_row - 1} before it; training stopped, and none "
                    "of these steps changed a parameter. Resume from the last checkpoint with a lower "
                    "--config.opt.learning_rate; `eelbert pretrain --show_batch=STEP` shows a step's rows."
                )
        sound = skipped == 0
        figures = {"skipped_steps": float(np.sum(skipped))}
        if np.any(sound):
            figures["train_loss"] = float(np.mean(losses[sound], dtype=np.float64))
            figures["grad_norm"] = float(np.mean(norms[sound], dtype=np.float64))
        figures["learning_rate"] = float(self._learning_rate(host[-1]["update"][-1]))
        figures["tokens_per_second"] = len(losses) * self._config.tokens_per_step / (ended - self.started)
        return figures


def run(
    state: TrainState,
    *,
    config: LoopConfig,
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]],
    next_batch: Callable[[int], Any],
    evaluate: Callable[[TrainState], dict[str, float]],
    save: Callable[[TrainState], None],
    stop: Callable[[], bool],
    saved_step: int | None,
    learning_rate: Callable[[int], Any],
    writer: Writer,
    supervision: Supervision,
) -> tuple[TrainState, dict[str, float]]:
    """Train from `state.step` to `config.total_steps`; return the last state and its held-out figures.

    On the CPU backend every call is waited for: dispatching ahead deadlocks virtual devices. Elsewhere one
    call is in flight while the next is made ready.

    Args:
      state: donated.
      train_step: (state, batches of K steps) -> (state, metrics, each [K]).
      next_batch: step -> the device batches of the K steps after it; a pure function.
      stop: asked after every evaluation whether to end early.
      saved_step: step of the newest checkpoint, if there is one.

    Raises:
      NonFiniteLoss: at the report, or before a save, that follows the step.
      Preempted: the machine asked for the end; the state is handed to `save`.
    """
    step = int(state.step)
    _check_start(step, config)
    block = jax.default_backend() == "cpu"
    clock = supervision.goodput
    meter = _Meter(config, learning_rate, writer, clock)
    figures: dict[str, float] = {}
    in_flight: Any = None

    def save_now() -> None:
        meter.report(step, time.monotonic())
        with clock.during("checkpoint"):
            _check_finite(state, step)
            save(state)

    if step < config.total_steps:
        writer.scalars(step, clock.seconds())  # what starts took stands, even if this one is killed at once
    while True:
        last = step == config.total_steps
        fresh = step != saved_step  # what a resumed run evaluated and saved at its first step stands already
        preempted = not last and supervision.preemption.reached()
        if fresh and preempted:  # at once: the machine may be gone before an evaluation ends
            save_now()
        if last or (fresh and step % config.eval_every_steps == 0):
            meter.report(step, time.monotonic())
            with clock.during("evaluation"):
                figures = evaluate(state)
            writer.note(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in figures.items()))
            if fresh:
                writer.scalars(step, figures)
            last = last or stop()
        if fresh and not preempted and (last or step % config.checkpoint_every_steps == 0):
            save_now()
        if last:
            return state, figures
        if preempted:
            raise Preempted(f"Asked to end (SIGTERM): saved step {step}; the same command continues from it.")
        called = time.monotonic()
        if not meter.metrics:
            meter.restart(called)  # evaluation and saving do not count as training time
        with clock.during("data"):
            batch = next_batch(step)
        clock.enter("compile" if in_flight is None else "step")
        state, metrics = train_step(state, batch)
        jax.block_until_ready(metrics if block else in_flight)
        clock.enter("step")
        supervision.watchdog.beat()
        in_flight = metrics
        if step % config.log_every_steps == 0:
            meter.report(step, called)
        meter.metrics.append(metrics)
        step += config.steps_per_call


def _check_start(step: int, config: LoopConfig) -> None:
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
