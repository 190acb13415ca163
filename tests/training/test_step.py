"""One optimizer step and the skipping of one: by a branch on CPUs, by selection on accelerators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eelbert_jax.training import step as training_step
from eelbert_jax.training.step import TrainState, apply_gradients

WAYS = (training_step._update_by_branch, training_step._update_by_selection)
OPTIMIZER = optax.with_extra_args_support(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)))


def a_state():
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
    return TrainState(jnp.int32(4), params, OPTIMIZER.init(params))


@pytest.fixture(params=WAYS)
def step(request, monkeypatch):
    monkeypatch.setattr(training_step, "_update_by_branch", request.param)
    return jax.jit(functools.partial(apply_gradients, optimizer=OPTIMIZER))


def test_a_sound_step_is_the_optimizers(step):
    state = a_state()
    grads = jax.tree.map(lambda leaf: 0.1 * leaf + 0.5, state.params)
    new, metrics = step(state, jnp.float32(2.0), grads)
    changes, slots = OPTIMIZER.update(grads, state.opt_state, state.params)
    expected = optax.apply_updates(state.params, changes)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), new.params, expected)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), new.opt_state, slots)
    assert (int(new.step), int(metrics["skipped"])) == (5, 0)


@pytest.mark.parametrize(("loss", "gradient"), [(jnp.nan, 1.0), (1.0, jnp.inf), (1.0, jnp.nan)])
def test_a_step_that_is_not_finite_is_counted_and_changes_nothing(step, loss, gradient):
    state = a_state()
    grads = jax.tree.map(jnp.ones_like, state.params)
    grads["w"] = grads["w"].at[1, 2].set(gradient)
    new, metrics = step(state, jnp.float32(loss), grads)
    jax.tree.map(np.testing.assert_array_equal, (new.params, new.opt_state), (state.params, state.opt_state))
    assert (int(new.step), int(metrics["skipped"])) == (5, 1)
