"""Plans for TPU slices that are not here: needs libtpu, which `make test-tpu-plan` installs."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WIDTH, VOCABULARY = 128 * 8, 1024
"""A share of an eighth fills the 128 lanes of a TPU: only then does its compiler scatter what it reduces."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: make test-tpu-plan"
    ),
]


def run_plan(topology, *flags):
    """Return the finished process that plans a small model without dropout, which compiles fastest."""
    command = [sys.executable, "-m", "eelbert_jax", "pretrain", "--plan", f"--topology={topology}", "--json"]
    command += ["--config=configs/pretrain.py:micro", "--noalternatives"]
    sizes = dict(
        hidden_size=WIDTH,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    command += [f"--config.model.{name}={value}" for name, value in sizes.items()]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def planned(topology, *flags):
    done = run_plan(topology, "--config.batch_size=8", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def payload(plan, kind):
    return sum(one["payload_bytes"] for one in plan["traffic"] if one["kind"] == kind)


def test_float32_gradients_are_reduced_once_and_nothing_else_is_sent():
    plan = planned("v5e:2x4")
    assert (plan["num_chips"], plan["slice_shape"], plan["device_kind"]) == (8, [2, 4], "TPU v5e")
    assert {one["kind"] for one in plan["traffic"]} == {"all-reduce"}
    # Four bytes a parameter but for the token types' gradients, which follow from the positions'; scalars.
    assert payload(plan, "all-reduce") == pytest.approx(plan["memory"]["params"], abs=4 * 2 * WIDTH + 64)
    assert 0 < plan["memory"]["total"] < plan["memory"]["capacity"]
    assert plan["estimate"]["scheduled"] > plan["estimate"]["compute"] > 0
    assert plan["hours"] == pytest.approx(900_000 * plan["step_seconds"] / 3600)


def test_zero1_splits_the_slots_and_gathers_what_they_update():
    whole, split = planned("v5e:2x4"), planned("v5e:2x4", "--config.mesh.zero1=True")
    assert split["memory"]["optimizer"] < 0.2 * whole["memory"]["optimizer"]
    assert payload(split, "reduce-scatter") > 0.9 * split["memory"]["params"]
    assert payload(split, "all-gather") > 0.9 * split["memory"]["params"]
    sent = [sum(one["sent_bytes"] for one in plan["traffic"]) for plan in (whole, split)]
    assert sent[1] == pytest.approx(sent[0], rel=0.1)


def test_a_step_that_does_not_fit_names_the_knobs():
    done = run_plan("v5e:2x4", "--config.batch_size=2097152", "--config.data.eval_batch_size=256")
    assert done.returncode == 2
    assert "does not fit" in done.stderr
    for knob in ("model.dtype=bfloat16", "rows_per_device=", "mesh.zero1=True", "mesh.fsdp=", "more chips"):
        assert knob in done.stderr


@pytest.mark.parametrize("topology", ["v99:2x4", "v5e:3x5", "nonsense"])
def test_an_unknown_topology_is_a_clear_error(topology):
    done = run_plan(topology)
    assert done.returncode == 2
    assert f"libtpu cannot compile for the topology '{topology}'" in done.stderr
    assert "v5e:16x16" in done.stderr


def test_more_chips_than_rows_are_refused():
    done = run_plan("v5e:16x16", "--config.batch_size=128")
    assert done.returncode == 2
    assert "batch_size=128 rows do not split over 256 devices" in done.stderr
