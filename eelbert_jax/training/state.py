"""`TrainState`: everything that a checkpoint holds, and nothing else."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Sharding


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


def init_state(
    init_params: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    sharding: Sharding,
) -> TrainState:
    """Initialize the state under `jit`, so that each device makes only the part it holds.

    Args:
      init_params: key -> parameters.
      optimizer: makes the slots.
      key: a JAX key.
      sharding: where every leaf lies.
    """

    def init(key: jax.Array) -> TrainState:
        params = init_params(key)
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    return jax.jit(init, out_shardings=sharding)(key)
