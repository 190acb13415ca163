"""One optimizer step of any objective: passes over the batch, gradients, the update or its skipping."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from eelbert_jax.training.optimizer import num_updates
from eelbert_jax.training.sharding import Layout, constrain


@flax.struct.dataclass
class TrainState:
    """Hold everything that a checkpoint holds: completed updates (int32 scalar), float32 parameters, slots.

    No random key and no data position: both are functions of (seed, step). No hashed table: it is a constant.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState


def named_key(seed: int, name: str) -> jax.Array:
    """Return the root key of a purpose, to be folded with the step; its first four letters tell it apart."""
    return jax.random.fold_in(jax.random.key(seed), int.from_bytes(name.encode()[:4], "big"))


def initializer(
    init_params: Callable[[jax.Array], Any], optimizer: optax.GradientTransformationExtraArgs
) -> Callable[[jax.Array], TrainState]:
    """Return key -> the state at step 0."""

    def init(key: jax.Array) -> TrainState:
        params = init_params(key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    return init


Update = Callable[[TrainState], TrainState]
Metrics = dict[str, jax.Array]


class Objective(Protocol):
    """What a run learns.

    Attributes:
      constants: what the model reads beside its parameters; no gradient, in no checkpoint.
      main_figure: the figure of `evaluate` that a run is judged by: the larger, the better.
      keeps_best: the step with the best main figure is the result; otherwise the last one is.
      has_many_shapes: its batches, one a call, differ in shape.
    """

    keeps_best: ClassVar[bool]
    has_many_shapes: ClassVar[bool]

    @property
    def constants(self) -> Any: ...  # noqa: D102
    @property
    def main_figure(self) -> str: ...  # noqa: D102

    def init(self, key: jax.Array) -> Any:
        """Return the first parameters."""

    def next_batch(self, step: int) -> Any:
        """Return the device batches of the K steps after `step`, every leaf [K, B, ...]: a pure function."""

    def examples(self, batch: Any, step: jax.Array) -> tuple[Any, jax.Array]:
        """Return what the loss reads of one batch, every leaf [B, ...], and its sum of weights. Traced."""

    def loss(
        self, params: Any, constants: Any, examples: Any, total_weight: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Return these examples' share of the mean loss over `total_weight`, float32 scalar. Traced."""

    def evaluate(self, state: TrainState, beat: Callable[[], None]) -> dict[str, float]:
        """Return held-out figures; calls `beat` with every batch."""


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    layout: Layout,
    *,
    seed: int,
    passes: int = 1,
    trained: Callable[[Any], Any] | None = None,
) -> Callable[[TrainState, Any, Any], tuple[TrainState, Metrics]]:
    """Return (state, constants, batches [K, B, ...]) -> (state, metrics [K]), jitted; donates the state.

    K optimizer steps run in one call: for small models a call's dispatch costs as much as its arithmetic.
    Where batches have many shapes, the update is a program of its own, compiled once and not with every
    shape. The dropout of a step is a function of (seed, step), so that a resumed run repeats it. Split
    parameters are gathered once, before the passes; gradients are reduced once, after them, to where the
    slots lie.

    Args:
      passes: parts that a batch is taken in; their gradients are added up.
      trained: parameters -> tree of bools; the gradients of the others are not computed. None: all are.
    """
    dropout_key = named_key(seed, "drop")

    def gradients(params: Any, step: jax.Array, constants: Any, batch: Any) -> tuple[jax.Array, Any]:
        examples, total_weight = objective.examples(batch, step)
        key = jax.random.fold_in(dropout_key, step)
        whole = constrain(params, jax.tree.map(lambda _: layout.replicated, params))
        loss, grads = _gradients(objective, whole, constants, examples, total_weight, key, passes)
        if trained is not None:
            grads = jax.tree.map(
                lambda grad, keep: grad if keep else jnp.zeros_like(grad), grads, trained(grads)
            )
        return loss, constrain(grads, layout.slots(grads))

    def update(state: TrainState, loss: jax.Array, grads: Any) -> tuple[TrainState, Metrics]:
        return apply_gradients(state, loss, grads, optimizer, lambda new: constrain(new, layout.state(new)))

    def gradient_step(params: Any, step: jax.Array, constants: Any, batches: Any) -> tuple[jax.Array, Any]:
        return gradients(params, step, constants, jax.tree.map(lambda leaf: leaf[0], batches))

    def update_step(state: TrainState, loss: jax.Array, grads: Any) -> tuple[TrainState, Metrics]:
        state, metrics = update(state, loss, grads)
        return state, jax.tree.map(lambda leaf: leaf[None], metrics)

    def train_step(state: TrainState, constants: Any, batches: Any) -> tuple[TrainState, Metrics]:
        if jax.tree.leaves(batches)[0].shape[0] == 1:
            return update_step(state, *gradient_step(state.params, state.step, constants, batches))
        return jax.lax.scan(
            lambda state, batch: update(state, *gradients(state.params, state.step, constants, batch)),
            state,
            batches,
        )

    if not objective.has_many_shapes:
        return jax.jit(train_step, donate_argnums=0)
    jitted_gradients, jitted_update = jax.jit(gradient_step), jax.jit(update_step, donate_argnums=0)
    return lambda state, constants, batches: jitted_update(
        state, *jitted_gradients(state.params, state.step, constants, batches)
    )


def _gradients(
    objective: Objective,
    params: Any,
    constants: Any,
    examples: Any,
    total_weight: jax.Array,
    key: jax.Array,
    passes: int,
) -> tuple[jax.Array, Any]:
    """Return the loss of a batch and its gradients, summed over the passes."""
    loss_and_gradients = jax.value_and_grad(objective.loss)
    if passes == 1:
        return loss_and_gradients(params, constants, examples, total_weight, key)

    def split(leaf: jax.Array) -> jax.Array:
        # Pass a takes rows a, a + A, a + 2A, ..., so that every pass is spread over all devices.
        return leaf.reshape(-1, passes, *leaf.shape[1:]).swapaxes(0, 1)

    def add(total: Any, inputs: Any) -> tuple[Any, None]:
        index, part = inputs
        found = loss_and_gradients(params, constants, part, total_weight, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, found), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.scan(add, zeros, (jnp.arange(passes), jax.tree.map(split, examples)))[0]


def apply_gradients(
    state: TrainState,
    loss: jax.Array,
    grads: Any,
    optimizer: optax.GradientTransformationExtraArgs,
    pin: Update = lambda state: state,
) -> tuple[TrainState, Metrics]:
    """Take one optimizer step, unless the loss or the gradient is not finite.

    Then the step is counted and nothing else changes: neither parameters nor slots nor the schedule see it.
    `pin` puts the new state where it belongs. Metrics are `loss`, `grad_norm` (before clipping), `skipped` (0
    or 1) and `update` (sound updates before).
    """

    def update(state: TrainState) -> TrainState:
        changes, opt_state = optimizer.update(grads, state.opt_state, state.params, grad_norm=norm)
        return pin(TrainState(state.step, optax.apply_updates(state.params, changes), opt_state))

    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    metrics = {"update": num_updates(state.opt_state)}
    state = jax.lax.platform_dependent(
        state,
        cpu=functools.partial(_update_by_branch, finite, update),
        default=functools.partial(_update_by_selection, finite, update),
    )
    metrics |= {"loss": loss, "grad_norm": norm, "skipped": 1 - finite.astype(jnp.int32)}
    return dataclasses.replace(state, step=state.step + 1), metrics


def _update_by_branch(finite: jax.Array, update: Update, state: TrainState) -> TrainState:
    """Update where `finite`; a CPU would spend a quarter of a small step on a selection's memory traffic."""
    return jax.lax.cond(finite, update, lambda state: state, state)


def _update_by_selection(finite: jax.Array, update: Update, state: TrainState) -> TrainState:
    """Do the same; accelerators fuse the selection into the update, where a branch copies the state."""
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), update(state), state)
