"""Plans for GPUs that are not here: needs JAX's CUDA plugin, which `make test-plan` installs."""

import importlib.util

import pytest

from support.plans import WIDTH, payload, planned, run_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("jax_cuda13_plugin") is None,
        reason="the CUDA plugin is not installed: make test-plan",
    ),
]


def test_one_gpu_sends_nothing_and_its_memory_and_time_are_known():
    plan = planned("h200:1")
    assert (plan["num_chips"], plan["device_kind"], plan["traffic"]) == (1, "NVIDIA H200 SXM", [])
    memory = plan["memory"]
    assert memory["params"] < memory["total"] < memory["usable"] == 0.75 * memory["capacity"] == 0.75 * 141e9
    assert plan["flops"] is None, "the compiler does not say"
    # AdamW alone reads four arrays of the parameters' size and writes three.
    assert plan["bytes_accessed"] > 7 * memory["params"]
    assert plan["step_seconds"] == plan["estimate"]["memory"] > plan["estimate"]["compute"] > 0


@pytest.mark.parametrize("kind", ["a100", "h100"])
def test_eight_gpus_reduce_float32_gradients_once(kind):
    plan = planned(f"{kind}:8")
    assert (plan["num_chips"], plan["slice_shape"]) == (8, [8])
    assert {one["kind"] for one in plan["traffic"]} == {"all-reduce"}
    assert payload(plan, "all-reduce") == pytest.approx(plan["memory"]["params"], abs=4 * 2 * WIDTH + 64)


def test_a_step_that_does_not_fit_names_the_knobs():
    done = run_plan("h200:1", "--config.batch_size=8388608", "--config.data.eval_batch_size=256")
    assert done.returncode == 2, done.stderr
    assert "does not fit" in done.stderr
    assert "JAX takes 75% (see XLA_PYTHON_CLIENT_MEM_FRACTION)" in done.stderr
    assert "model.dtype=bfloat16" in done.stderr
    assert "rows_per_device=4194304" in done.stderr


def test_the_page_says_what_other_batches_and_meshes_cost():
    done = run_plan("h200:2", "--config.batch_size=8", "--nojson", "--alternatives")
    assert done.returncode == 0, done.stderr
    assert "2 x NVIDIA H200 SXM, mesh data 2 x fsdp 1" in done.stdout
    table = done.stdout[done.stdout.index("change ") :].splitlines()
    changes = [line.split("  ")[0] for line in table[1:]]
    assert changes == ["as configured", "batch_size=16", "batch_size=32", "mesh.zero1=True", "mesh.fsdp=2"]
    milliseconds = [float(line.split()[-4]) for line in table[1:]]
    assert milliseconds[2] > milliseconds[1] > milliseconds[0] > 0
