"""Checkpoints whose every value tells their step, and damage to their files."""

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.step import TrainState

IDENTITY = {"size": "micro", "vocabulary": {"words": 7}}


def state_at(step, size=5_000):
    """Return a state whose every value tells its step; random, so that no file compresses away."""
    values = np.random.default_rng(step).standard_normal((2, size), np.float32)
    return TrainState(
        jnp.int32(step), {"layer": {"w": jnp.asarray(values[0])}}, {"mu": jnp.asarray(values[1])}
    )


def assert_state(state, step):
    wanted = state_at(step, state.params["layer"]["w"].shape[0])
    jax.tree.map(np.testing.assert_array_equal, state, wanted)


def save(directory, *steps, **options):
    with Checkpoints(directory, **{"keep": 5, **options}) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step), IDENTITY)


def restored(directory, create=False):
    """Return the newest good state and hold it and its parameters against what was saved at that step."""
    with Checkpoints(directory, create=create) as checkpoints:
        like = jax.eval_shape(lambda: state_at(0))
        state = checkpoints.restore(like, IDENTITY)
        step = int(state.step)
        assert checkpoints.latest_step() == step
        assert_state(state, step)
        params = checkpoints.restore_params(like.params, IDENTITY)
        jax.tree.map(np.testing.assert_array_equal, params, state.params)
    return step


def names(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def one_file(folder, pattern):
    """Return the largest file of the pattern: the one that holds values where several do."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_size)


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
