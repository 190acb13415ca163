"""The masked-LM training and evaluation steps: rows in, a new state or sums out.

Knows a model only as an object with `apply` and a `decoder_inputs` method.
Leaves the order of steps to `loop`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eelbert_jax.corpus import masking
from eelbert_jax.training.losses import MaskedLMSums, masked_lm_loss, masked_lm_sums
from eelbert_jax.training.sharding import Layout, constrain
from eelbert_jax.training.state import TrainState, apply_gradients, named_key

CPU_VOCAB_CHUNK = 4096
"""Columns of the softmax at a time on a CPU: M x 4096 float32 stay near the caches (measured fastest of
512 ... V for M = 320 and D = 128). Elsewhere the whole vocabulary is one slice."""

CPU_TOKENS_A_PASS = 2048
"""Tokens that a CPU takes in one pass: activations of 16 x 128 stay near the caches. A batch of 64 x 128 of
BERT-tiny in four passes is a fifth faster than in one on two cores (25.4k against 20.8k tokens/s)."""


def default_accumulation(rows_per_device: int, row_length: int, platform: str | None = None) -> int:
    """Return the number of passes that a device's share of a batch takes where the user leaves it open.

    One on an accelerator; on a CPU as few as keep a pass within `CPU_TOKENS_A_PASS`, or single rows.

    Args:
      rows_per_device: a device's share of the batch.
      row_length: L.
      platform: "cpu", "gpu" or "tpu"; None: that of the default backend.
    """
    if (platform or jax.default_backend()) != "cpu":
        return 1
    fitting = max(CPU_TOKENS_A_PASS // row_length, 1)
    rows = max(n for n in range(1, min(fitting, rows_per_device) + 1) if rows_per_device % n == 0)
    return rows_per_device // rows


@dataclasses.dataclass(frozen=True)
class MaskedLMTask:
    """What the steps need to know besides the model.

    Attributes:
      num_masked: P, targets a row.
      mask_id: id of [MASK].
      vocab_size: V.
      special_ids: ids that are never masked.
      accumulation: passes that a batch is split into.
      seed: root of masking and dropout.
      platform: "cpu", "gpu" or "tpu", which the steps are compiled for. That of the default backend, unless
        the devices are not here.
    """

    num_masked: int
    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]
    accumulation: int = 1
    seed: int = 0
    platform: str = dataclasses.field(default_factory=jax.default_backend)

    @property
    def vocab_chunk(self) -> int:
        """Columns of the softmax at a time on this platform."""
        return min(self.vocab_size, CPU_VOCAB_CHUNK) if self.platform == "cpu" else self.vocab_size

    @property
    def mask_options(self) -> dict[str, Any]:
        """Keyword arguments of `masking.mask_rows`."""
        names = ("num_masked", "mask_id", "vocab_size", "special_ids")
        return {name: getattr(self, name) for name in names}


def _decoder_inputs(model, params, constants, masked: masking.MaskedRows, dropout_key: jax.Array | None):
    """Return (features [B * P, D], decoder, bias, labels [B * P]) of masked rows."""
    features, decoder, bias = model.apply(
        {"params": params, "constants": constants},
        masked.input_ids,
        masked.positions,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        method="decoder_inputs",
    )
    return features.reshape(-1, features.shape[-1]), decoder, bias, masked.labels.reshape(-1)


def make_update(
    model, optimizer: optax.GradientTransformationExtraArgs, task: MaskedLMTask, layout: Layout
) -> Callable:
    """Return one optimizer step: (state, constants, rows [B, L]) -> (state, metrics).

    The masks and the dropout of a step are functions of (seed, step), so that a resumed run repeats them.
    Gradients are summed over `accumulation` passes and are those of the mean over all targets of the batch.
    Split parameters are gathered once, before the passes; gradients are reduced once, after them, to where
    the optimizer's slots lie.
    """
    mask_key, dropout_key = named_key(task.seed, "mask"), named_key(task.seed, "drop")

    def loss_of(params, constants, masked, key):
        features, decoder, bias, labels = _decoder_inputs(model, params, constants, masked, key)
        return masked_lm_loss(features, decoder, bias, labels, masked.weights.reshape(-1), task.vocab_chunk)

    def gradients(params, constants, masked, key):
        if task.accumulation == 1:
            return jax.value_and_grad(loss_of)(params, constants, masked, key)

        def split(leaf):
            # Pass a takes rows a, a + A, a + 2A, ..., so that every pass is spread over all devices.
            return leaf.reshape(-1, task.accumulation, *leaf.shape[1:]).swapaxes(0, 1)

        def body(total, inputs):
            index, part = inputs
            found = jax.value_and_grad(loss_of)(params, constants, part, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, found), None

        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        passes = (jnp.arange(task.accumulation), jax.tree.map(split, masked))
        return jax.lax.scan(body, zeros, passes)[0]

    def update(state: TrainState, constants, rows: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(mask_key, state.step)
        masked = masking.mask_rows(rows.astype(jnp.int32), key, **task.mask_options)
        num_targets = jnp.sum(masked.weights)
        masked = masked._replace(weights=masked.weights / jnp.maximum(num_targets, 1.0))
        whole = constrain(state.params, jax.tree.map(lambda _: layout.replicated, state.params))
        loss, grads = gradients(whole, constants, masked, jax.random.fold_in(dropout_key, state.step))
        grads = constrain(grads, layout.slots(grads))
        pin = lambda new: constrain(new, layout.state(new))  # noqa: E731
        state, metrics = apply_gradients(state, loss, grads, optimizer, pin)
        return state, {**metrics, "num_targets": num_targets}

    return update


def make_train_step(
    model, optimizer: optax.GradientTransformationExtraArgs, task: MaskedLMTask, layout: Layout
) -> Callable:
    """Return the jitted (state, constants, rows [K, B, L]) -> (state, metrics of [K]); donates the state.

    K optimizer steps run in one call: for small models a call's dispatch costs as much as its arithmetic.
    """
    update = make_update(model, optimizer, task, layout)

    def train_step(state, constants, rows):
        if rows.shape[0] == 1:
            state, metrics = update(state, constants, rows[0])
            return state, jax.tree.map(lambda leaf: leaf[None], metrics)
        return jax.lax.scan(lambda state, rows: update(state, constants, rows), state, rows)

    return jax.jit(train_step, donate_argnums=0)


def make_eval_step(model, task: MaskedLMTask) -> Callable:
    """Return the jitted (params, constants, rows [B, L], row_indices [B], row_weights [B]) -> `MaskedLMSums`.

    A row's masks depend on (seed, its index) alone: the same targets at every evaluation and batch size.
    """
    key = named_key(task.seed, "eval")

    def eval_step(params, constants, rows, row_indices, row_weights) -> MaskedLMSums:
        masked = masking.mask_rows_by_index(rows.astype(jnp.int32), row_indices, key, **task.mask_options)
        features, decoder, bias, labels = _decoder_inputs(model, params, constants, masked, None)
        weights = (masked.weights * row_weights[:, None]).reshape(-1)
        return masked_lm_sums(features, decoder, bias, labels, weights, task.vocab_chunk)

    return jax.jit(eval_step)
