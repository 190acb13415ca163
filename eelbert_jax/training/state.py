"""`TrainState`: everything that a checkpoint holds, and nothing else."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax


@flax.struct.dataclass
class TrainState:
    """Hold the completed updates, the parameters and the optimizer slots.

    No random key and no data position: both are functions of (seed, step). No hashed table: it is a constant.

    Attributes:
      step: int32 scalar, completed updates.
      params: nested dict of float32 arrays.
      opt_state: the optimizer's slots.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState


def named_key(seed: int, name: str) -> jax.Array:
    """Return the root key of a purpose ("mask", "drop"), to be folded with the step.

    Purposes are told apart by the first four bytes of their names, so that no two draw the same numbers.
    """
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(name.encode()[:4], "big"))


def initializer(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[jax.Array], TrainState]:
    """Return key -> the state at step 0.

    Args:
      init_params: key -> parameters.
      optimizer: makes the slots.
    """

    def init(key: jax.Array) -> TrainState:
        params = init_params(key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    return init


def apply_gradients(
    state: TrainState,
    loss: jax.Array,
    grads: Any,
    optimizer: optax.GradientTransformationExtraArgs,
    pin: Callable[[TrainState], TrainState] = lambda state: state,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one optimizer step, unless the loss or the gradient is not finite.

    Then the step is counted and nothing else changes: neither parameters nor slots nor the schedule see it.
    Whoever reads `skipped` decides when enough is enough. Source: ours; `optax.apply_if_finite` applies the
    bad update in the end.

    Args:
      state: before.
      loss: float32 scalar.
      grads: in the shape of the parameters.
      optimizer: made the slots; its `update` is given the global norm of the gradients as `grad_norm`.
      pin: puts the leaves of the new state where they belong.

    Returns:
      The new state, and the metrics `loss`, `grad_norm` (before clipping) and `skipped` (0 or 1).
    """

    def update(state: TrainState) -> TrainState:
        changes, opt_state = optimizer.update(grads, state.opt_state, state.params, grad_norm=norm)
        return pin(TrainState(state.step, optax.apply_updates(state.params, changes), opt_state))

    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    state = jax.lax.platform_dependent(
        state,
        cpu=functools.partial(_update_by_branch, finite, update),
        default=functools.partial(_update_by_selection, finite, update),
    )
    skipped = 1 - finite.astype(jnp.int32)
    return dataclasses.replace(state, step=state.step + 1), {
        "loss": loss,
        "grad_norm": norm,
        "skipped": skipped,
    }


def _update_by_branch(
    finite: jax.Array, update: Callable[[TrainState], TrainState], state: TrainState
) -> TrainState:
    """Return the updated state where `finite` (bool scalar), else the state.

    A CPU would spend a quarter of a small step on the memory traffic of a selection.
    """
    return jax.lax.cond(finite, update, lambda state: state, state)


def _update_by_selection(
    finite: jax.Array, update: Callable[[TrainState], TrainState], state: TrainState
) -> TrainState:
    """Return the same; accelerators fuse the selection into the update, where a branch copies the state."""
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(state), state)
