import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.training.optimizer import (
    OptimizerConfig,
    clip_by_given_norm,
    decay_mask,
    learning_rate_schedule,
    make_optimizer,
)


def test_schedule_at_its_boundaries_for_900k_steps():
    schedule = learning_rate_schedule(OptimizerConfig(), 900_000)
    # float32: 1 - share of the decay is off by up to 2^-24 of the peak, which is all that is left at the end.
    for step, wanted in [
        (0, 0.0),
        (1, 1e-8),
        (9_999, 1e-4 * 0.9999),
        (10_000, 1e-4),
        (455_000, 0.5e-4),
        (899_999, 1e-4 / 890_000),
        (900_000, 0.0),
    ]:
        np.testing.assert_allclose(schedule(step), wanted, rtol=2e-6, atol=1e-4 * 2**-23)


def test_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="lower the warm-up"):
        learning_rate_schedule(OptimizerConfig(warmup_steps=11), 10)


def test_biases_and_layer_norm_are_not_decayed():
    params = {
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "LayerNorm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "predictions": {"bias": jnp.ones(2)},
    }
    assert decay_mask(params) == {
        "dense": {"kernel": True, "bias": False},
        "LayerNorm": {"scale": False, "bias": False},
        "predictions": {"bias": False},
    }


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_one_update_is_adamw_by_hand(max_grad_norm):
    config = OptimizerConfig(learning_rate=0.1, warmup_steps=0, max_grad_norm=max_grad_norm)
    optimizer = make_optimizer(config, 10)
    params = {"kernel": jnp.asarray([1.0, -2.0]), "bias": jnp.asarray([1.0])}
    grads = {"kernel": jnp.asarray([3.0, 4.0]), "bias": jnp.asarray([12.0])}
    state = optimizer.init(params)
    changes, _ = optimizer.update(grads, state, params, grad_norm=optax.tree.norm(grads))
    new = optax.apply_updates(params, changes)
    # After one step both bias-corrected moments are the (clipped) gradient g and g^2: step = sign(g), nearly.
    norm = 13.0 if max_grad_norm else 1.0
    step = lambda g: (g / norm) / (abs(g / norm) + 1e-6)  # noqa: E731
    wanted = [1.0 - 0.1 * (step(3.0) + 0.01 * 1.0), -2.0 - 0.1 * (step(4.0) + 0.01 * -2.0)]
    np.testing.assert_allclose(new["kernel"], wanted, rtol=1e-6)
    np.testing.assert_allclose(new["bias"], 1.0 - 0.1 * step(12.0), rtol=1e-6)


def test_clipping_may_be_turned_off_in_a_resumed_run():
    params = {"kernel": jnp.ones(2)}
    slots = [make_optimizer(OptimizerConfig(max_grad_norm=norm), 20_000).init(params) for norm in (0.0, 1.0)]
    assert jax.tree.structure(slots[0]) == jax.tree.structure(slots[1])


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 100.0])
def test_clipping_by_a_given_norm_is_that_of_optax(scale):
    grads = {"a": scale * jnp.asarray([0.3, -0.4]), "b": scale * jnp.asarray([[1.2]])}
    clip, published = clip_by_given_norm(1.0), optax.clip_by_global_norm(1.0)
    found, _ = clip.update(grads, clip.init(grads), grad_norm=optax.tree.norm(grads))
    wanted, _ = published.update(grads, published.init(grads))
    jax.tree.map(lambda left, right: np.testing.assert_allclose(left, right, rtol=1e-6), found, wanted)
