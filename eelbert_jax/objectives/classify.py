"""The fine-tuning and prediction steps: a batch of encoded examples in, a new state or logits out.

Knows a model only as an object with `apply`; leaves examples to `data`, metrics to `metrics` and the order of
steps to `loop`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from eelbert_jax.training.losses import classification_loss, regression_loss
from eelbert_jax.training.state import TrainState, apply_gradients, named_key


class Batch(NamedTuple):
    """Encoded examples of one static shape.

    Attributes:
      input_ids: int32 [B, L].
      attention_mask: bool [B, L], True = a real token.
      token_type_ids: int32 [B, L].
      labels: int32 [B] classes, float32 [B] scores, or int32 [B, L] tags.
      weights: float32 in the shape of `labels`; 0 for a row, or a token, that does not count.
    """

    input_ids: Any
    attention_mask: Any
    token_type_ids: Any
    labels: Any
    weights: Any


def make_train_step(
    model, optimizer: optax.GradientTransformationExtraArgs, *, regression: bool, seed: int
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """Return the jitted (state, constants, batch) -> (state, metrics of [1]); donates the state.

    Compiled once for each bucket length. The dropout of a step is a function of (seed, step).
    """
    dropout_key = named_key(seed, "drop")

    def loss_of(params, constants, batch: Batch, key):
        logits = model.apply(
            {"params": params, "constants": constants},
            batch.input_ids,
            batch.attention_mask,
            batch.token_type_ids,
            deterministic=False,
            rngs={"dropout": key},
        )
        if regression:
            total = regression_loss(logits[..., 0], batch.labels, batch.weights)
        else:
            total = classification_loss(logits, batch.labels, batch.weights)
        return total / jnp.maximum(jnp.sum(batch.weights), 1.0)

    def train_step(state: TrainState, constants, batch: Batch):
        key = jax.random.fold_in(dropout_key, state.step)
        loss, grads = jax.value_and_grad(loss_of)(state.params, constants, batch, key)
        state, metrics = apply_gradients(state, loss, grads, optimizer)
        return state, jax.tree.map(lambda leaf: leaf[None], metrics)

    return jax.jit(train_step, donate_argnums=0)


def make_predict_step(model, sharding: jax.sharding.Sharding) -> Callable[..., jax.Array]:
    """Return the jitted (params, constants, batch) -> float32 logits, placed by `sharding`."""

    def predict_step(params, constants, batch: Batch) -> jax.Array:
        variables = {"params": params, "constants": constants}
        return model.apply(variables, batch.input_ids, batch.attention_mask, batch.token_type_ids)

    return jax.jit(predict_step, out_shardings=sharding)
