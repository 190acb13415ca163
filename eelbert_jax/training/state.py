"""`TrainState`: everything that a checkpoint holds, and nothing else."""

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
