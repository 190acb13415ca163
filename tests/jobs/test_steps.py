"""What holds of the steps of every objective: one trace, no key used twice, the same on eight devices."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import pytest

from eelbert_jax.model import dropout
from eelbert_jax.objectives.masked_lm import MaskedLM
from support.small_runs import DROPOUT, OBJECTIVES, masked_lm

ROOT = Path(__file__).resolve().parents[2]
STEPS = ("train_step", "gradient_step", "update_step", "eval_step", "predict_step")


@contextlib.contextmanager
def every_step_traced_once():
    """Let a step that is jitted within fail where it is traced twice; yield the names of the steps."""
    chex.clear_trace_counter()
    jit, found = jax.jit, []

    def counted(function, **options):
        if function.__name__ in STEPS:
            found.append(function.__name__)
            function = chex.assert_max_traces(function, n=1)
        return jit(function, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", counted)
        yield found


@contextlib.contextmanager
def every_key_used_once(times=1):
    """Let JAX fail where a key is used twice; dropout hashes its keys itself, which JAX would not see."""
    random = dropout.random_below

    def seen(key, *options):
        for _ in range(times):
            jax.random.bits(key)
        return random(key, *options)

    with pytest.MonkeyPatch.context() as patch, jax.debug_key_reuse(True):
        patch.setattr(dropout, "random_below", seen)
        yield


@pytest.fixture(scope="module")
def on_one_device(rows_dir, tmp_path_factory) -> dict:
    """Run every objective, strictly; return the figures of each."""
    figures = {}
    for name, run in OBJECTIVES.items():
        with every_step_traced_once() as steps, every_key_used_once():
            figures[name] = run(rows_dir, tmp_path_factory.mktemp(name), **DROPOUT)
        trains = ["train_step"] if name == "masked_lm" else ["gradient_step", "update_step"]
        assert steps[:-1] == trains, "and one that evaluates"
    return figures


def test_a_run_traces_each_of_its_steps_once_and_uses_no_key_twice(on_one_device):
    assert on_one_device.keys() == OBJECTIVES.keys()


def test_a_second_trace_is_noticed(rows_dir, tmp_path, monkeypatch):
    next_batch = MaskedLM.next_batch

    def shorter_in_the_end(self, step):
        batch = next_batch(self, step)
        return batch[:, :, :-1] if step == 3 else batch

    monkeypatch.setattr(MaskedLM, "next_batch", shorter_in_the_end)
    with every_step_traced_once(), pytest.raises(AssertionError, match="'train_step' is traced > 1 times"):
        masked_lm(rows_dir, tmp_path)


def test_a_key_that_is_used_twice_is_noticed(rows_dir, tmp_path):
    with every_key_used_once(times=2), pytest.raises(jax.errors.KeyReuseError):
        masked_lm(rows_dir, tmp_path, **DROPOUT)


@pytest.fixture(scope="module")
def on_eight_devices(rows_dir, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("eight")
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "tests/support/small_runs.py", rows_dir, folder],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_eight_devices_learn_what_one_does_however_arrays_lie(on_one_device, on_eight_devices):
    assert on_eight_devices.pop("devices") == 8
    for objective, found in on_eight_devices.items():
        # Sums in another order: an ulp a step, carried through the steps.
        assert found == pytest.approx(on_one_device[objective], rel=1e-5), objective


def test_another_seed_is_another_run(rows_dir, tmp_path, on_one_device):
    """Negative control of the tolerance above."""
    other = masked_lm(rows_dir, tmp_path, seed=1, **DROPOUT)["heldout_loss"]
    assert other != pytest.approx(on_one_device["masked_lm"]["heldout_loss"], rel=1e-4)
