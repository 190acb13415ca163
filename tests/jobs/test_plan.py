"""`eelbert plan` on virtual devices: what goes over the wire, what is refused, who imports it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_plan(*flags, devices=8):
    """Return the finished `eelbert plan` of a process with virtual devices."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-m", "eelbert_jax", "plan", "--json", "--noalternatives"]
    # As many positions as tokens, and slices of the softmax that do not overlap: all gradients are used once.
    command += ["--config.model.max_position_embeddings=128", "--config.model.vocab_size=8192", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def gradient_bytes(plan):
    """Return the bytes of the gradients of float32 parameters, less those of the unused second token type."""
    width = 32
    return plan["memory"]["params"] - 4 * width


def test_only_gradients_go_over_the_wire_and_each_once():
    done = run_plan("--config=configs/pretrain.py:micro", "--config.batch_size=16")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["mesh"] == {"data": 8, "fsdp": 1}
    assert plan["estimate"] is None  # nobody publishes what a CPU can do
    reduced = sum(one["payload_bytes"] for one in plan["traffic"] if one["kind"] == "all-reduce")
    # A few scalars beside them; the remaining token type's gradient may be taken from the positions'.
    assert reduced == pytest.approx(gradient_bytes(plan), abs=4 * 32 + 64)
    # The CPU alone gathers the scores that choose the masked positions: its top-k runs in one piece.
    others = [one for one in plan["traffic"] if one["kind"] != "all-reduce"]
    assert sum(one["payload_bytes"] for one in others) <= 4 * 16 * 128


def test_a_batch_that_does_not_split_is_refused():
    done = run_plan("--config=configs/pretrain.py:micro", "--config.batch_size=12")
    assert done.returncode == 2
    assert "batch_size=12 rows do not split over 8 devices" in done.stderr


@pytest.mark.parametrize(("job", "expected"), [("pretrain", "False"), ("plan", "True")])
def test_planning_is_loaded_by_its_own_command_alone(job, expected):
    code = (
        f"import sys, eelbert_jax.jobs.{job}; "
        "print(any(name.startswith('eelbert_jax.planning') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
