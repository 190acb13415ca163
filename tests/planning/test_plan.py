"""Planning a training step: what is read off a compiled program, and what follows for time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.planning import cost, devices, hlo, page
from eelbert_jax.planning.cost import Collective, find_collectives, traffic
from eelbert_jax.planning.plan import Memory, Plan

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%condition (state: (s32[], f32[4,2])) -> pred[] {
  %state = (s32[]{:T(128)}, f32[4,2]{1,0}) parameter(0)
  %index = s32[]{:T(128)} get-tuple-element(%state), index=0
  %bound = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%index, %bound), direction=LT
}

%body (state: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %state.1 = (s32[]{:T(128)}, f32[4,2]{1,0}) parameter(0)
  %value = f32[4,2]{1,0:T(8,128)} get-tuple-element(%state.1), index=1
  %inside = f32[4,2]{1,0:T(8,128)S(1)} all-reduce(%value), replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %next = (s32[], f32[4,2]) tuple(%index, %inside), backend_config={"estimated_cycles":"7"}
}

%all-reduce-scatter.1 (input: f32[16,8]) -> f32[2,8] {
  %input = f32[16,8]{1,0} parameter(0)
  %whole = f32[16,8]{1,0} all-reduce(%input), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %mine = f32[2,8]{1,0} dynamic-slice(%whole, %zero), backend_config={"estimated_cycles":"99"}
}

%wrapped (operand: bf16[4]) -> bf16[32] {
  %operand = bf16[4]{0} parameter(0)
  ROOT %swap = bf16[32]{0} all-to-all(%operand), replica_groups={{0,1},{2,3},{4,5},{6,7}}
}

ENTRY %main (a: f32[4,2]) -> f32[4,2] {
  %a = f32[4,2]{1,0} parameter(0)
  %grads = (f32[3]{0:T(128)S(1)}, /*index=1*/bf16[2,2]{1,0:T(2,128)(2,1)}) all-reduce(%a, %b), \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, to_apply=%add, metadata={op_name="jit(step)/grad"}
  %gather = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%a), \
replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}, dimensions={0}
  %gathered = f32[16,8]{1,0} all-gather-done(%gather)
  %loop = (s32[], f32[4,2]) while(%init), condition=%condition, body=%body
  %known = (s32[], f32[4,2]) while(%init), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %scattered = f32[2,8]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.1, \
backend_config={"estimated_cycles":"1000"}
  %begin = ((bf16[4]), bf16[32], u32[]) async-start(%c), calls=%wrapped
  %end = bf16[32]{0} async-done(%begin), calls=%wrapped
  %shift = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%d), source_target_pairs={{0,1}}
  %alone = f32[9]{0} all-reduce(%d), replica_groups={{0},{1}}, to_apply=%add
  ROOT %out = f32[4,2]{1,0} add(%a, %a), backend_config={"estimated_cycles":"500"}
}
"""


def test_every_way_to_write_a_collective_is_read():
    found = [(c.kind, c.payload_bytes, c.group_size, c.times) for c in find_collectives(PROGRAM, 8)]
    assert found == [
        ("all-reduce", 3 * 4 + 4 * 2, 4, 1),
        ("all-gather", 16 * 8 * 4, 8, 1),
        ("all-reduce", 4 * 2 * 4, 4, 5),  # the bound in the loop's condition
        ("all-reduce", 4 * 2 * 4, 4, 3),  # as the compiler says
        ("reduce-scatter", 16 * 8 * 4, 8, 1),  # fused on a TPU
        ("all-to-all", 32 * 2, 2, 1),  # of start and end once
        ("collective-permute", 8 * 4, 8, 1),
    ]
    assert find_collectives(PROGRAM, 8)[0].origin == "jit(step)/grad"


def test_cycles_count_loops_as_often_as_they_run_and_fusions_once():
    assert cost.estimated_cycles(PROGRAM) == (5 + 3) * 7 + 1000 + 500


def test_bytes_of_shapes():
    assert hlo.num_bytes("(f32[2,3]{1,0:T(8,128)}, pred[5], s4[3], bf16[], token[])") == 24 + 5 + 2 + 2
    assert hlo.elements("((f32[2], s8[3]{0:T(4,1)}), u32[])") == ["(f32[2], s8[3]{0:T(4,1)})", "u32[]"]


def test_traffic_is_what_ring_algorithms_send():
    reduced = Collective("all-reduce", 800, 8, 2, "")
    halves = [Collective("reduce-scatter", 800, 8, 2, ""), Collective("all-gather", 800, 8, 2, "")]
    assert reduced.sent_bytes == 2 * 2 * 800 * 7 / 8
    assert sum(half.sent_bytes for half in halves) == reduced.sent_bytes
    (one,) = traffic([reduced, Collective("all-reduce", 100, 8, 1, "")])
    assert (one.count, one.payload_bytes) == (3, 1700)


def test_a_slice_sends_over_the_rings_that_close():
    v5e, v5p = devices.CHIPS["TPU v5 lite"], devices.CHIPS["TPU v5"]
    assert v5e.send_bandwidth((2, 4)) == 100e9  # one ring through all
    assert v5e.send_bandwidth((16, 16)) == 200e9  # all four links, one way
    assert v5p.send_bandwidth((4, 4, 4)) == 600e9


def test_published_figures_agree_with_each_other():
    # Data sheets give the clock only through the peak; all generations run between 1 and 2 GHz.
    assert all(1e9 < chip.clock_hz < 2e9 for chip in devices.CHIPS.values() if chip.clock_hz)


def test_collectives_take_bandwidth_and_hops():
    chip = devices.CHIPS["TPU v5 lite"]
    large = Collective("all-reduce", 10**9, 256, 1, "")
    seconds = cost.collective_seconds([large], chip, (16, 16))
    assert seconds == pytest.approx(2 * 1e9 * 255 / 256 / 200e9 + 2 * 30e-6)


def test_matmul_flops_count_loops_and_gradients():
    def loss(weights, inputs):
        outputs, _ = jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), inputs, weights)
        return outputs.sum()

    shapes = jnp.zeros((3, 8, 8)), jnp.zeros((5, 8))
    forward = jax.jit(loss).trace(*shapes).jaxpr
    assert cost.matmul_flops(forward) == 3 * 2 * 5 * 8 * 8
    backward = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(*shapes).jaxpr
    assert cost.matmul_flops(backward) == 3 * cost.matmul_flops(forward)


def test_a_topology_without_its_compiler_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'eelbert_jax\[tpu-plan\]'"):
        devices.absent_devices("v5e:2x4")
    with pytest.raises(UserError, match=r"pip install 'eelbert_jax\[gpu-plan\]'"):
        devices.absent_devices("h200:8")


def test_a_gpu_plugin_without_its_assembler_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(devices, "GPU_PACKAGES", ("jax", "no_such_package", "no_such_package.inside"))
    with pytest.raises(UserError, match=r"pip install 'eelbert_jax\[gpu-plan\]'"):
        devices.absent_devices("h200:8")


@pytest.mark.parametrize("name", ["nonsense", "h300:8", "h200", "h200:0"])
def test_unknown_devices_are_a_clear_error(name):
    with pytest.raises(UserError, match=rf"topology '{name}'\. Name a TPU generation .* h200:8"):
        devices.absent_devices(name)


def a_plan(**changes):
    fields = dict(
        device_kind="TPU v5e",
        slice_shape=(2, 4),
        mesh={"data": 8, "fsdp": 1},
        batch_size=256,
        row_length=128,
        total_steps=900_000,
        memory=Memory(10, 20, 30, 40, 5, 105, 16 * devices.GIB, 16 * devices.GIB),
        flops=1e12,
        matmul_flops=1e12,
        bytes_accessed=1e9,
        bytes_counted_by="the compiler",
        optimal_seconds=None,
        traffic=(),
        estimate=cost.Estimate(compute=0.005, memory=0.001, collectives=0.005, scheduled=0.015),
    )
    return Plan(**{**fields, **changes})


def test_a_plan_says_tokens_and_hours():
    plan = a_plan()
    assert plan.tokens_per_second == pytest.approx(256 * 128 / 0.020)
    assert plan.hours == pytest.approx(900_000 * 0.020 / 3600)
    text = page.page(plan, "Plan of tiny")
    assert "1,638,400 tokens/s; 900,000 steps in 5.0 hours" in text
    assert "the roofline, the sum" in text
    assert json.loads(json.dumps(plan.to_dict()))["step_seconds"] == 0.02


def test_an_unknown_chip_gets_no_time():
    text = page.page(a_plan(device_kind="TPU v99", estimate=None), "Plan")
    assert "none is estimated" in text
    assert "tokens/s" not in text


def test_what_the_compiler_does_not_say_is_unknown_and_not_zero():
    text = page.page(a_plan(flops=None, bytes_counted_by="this program"), "Plan")
    [flops] = [line for line in text.splitlines() if "FLOPs as the compiler counts" in line]
    [accessed] = [line for line in text.splitlines() if "bytes accessed" in line]
    assert flops.split()[-1] == "unknown"
    assert accessed.endswith("1.0 GB, as this program counts")


def test_a_change_without_a_plan_says_why():
    table = page.alternatives([("as configured", a_plan()), ("mesh.fsdp=8", "no divisor")])
    assert table.splitlines()[1].startswith("as configured")
    assert table.splitlines()[2].split(maxsplit=1) == ["mesh.fsdp=8", "no divisor"]


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
