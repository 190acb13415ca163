"""A trained map of a student's states to its teacher's width: of the run alone, no part of the model."""

from typing import Any

import jax
import jax.numpy as jnp

from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.layers import dense

TO_TEACHER = "to_teacher"
"""Its name among a run's parameters."""


def with_map(params: Any, config: BertConfig, teacher_width: int, key: jax.Array) -> Any:
    """Return first parameters with those of the map, where student and teacher differ in width."""
    if teacher_width == config.hidden_size:
        return params
    states = jnp.zeros((1, config.hidden_size))
    first = dense(config, teacher_width, name=None).init(jax.random.fold_in(key, 1), states)
    return {**params, TO_TEACHER: first["params"]}


def mapped(params: Any, config: BertConfig, teacher_width: int, states: jax.Array) -> jax.Array:
    """Return states [..., D] in the teacher's width."""
    if teacher_width == config.hidden_size:
        return states
    found: Any = dense(config, teacher_width, name=None).apply({"params": params[TO_TEACHER]}, states)
    return found
