"""What a program costs: bytes against XLA's own count, collectives, cycles and arithmetic by hand."""

import jax
import jax.numpy as jnp
import pytest

from eelbert_jax.model.layers import bfloat16_dot
from eelbert_jax.planning import cost, devices, hlo
from eelbert_jax.planning.cost import Collective, bytes_accessed, find_collectives, traffic

X = jax.ShapeDtypeStruct((256, 128), jnp.float32)
W = jax.ShapeDtypeStruct((128, 128), jnp.float32)
TABLE = jax.ShapeDtypeStruct((30_000, 128), jnp.float32)
IDS = jax.ShapeDtypeStruct((64,), jnp.int32)


def compiled(function, *arguments):
    return jax.jit(function).trace(*arguments).lower().compile()


def loss(w, x):
    return jnp.sum(jax.nn.softmax(jax.nn.gelu(x @ w) @ w) ** 2)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (lambda x, w: x @ w, (X, W)),
        (lambda x: jnp.tanh(x) + 1.0, (X,)),
        (jax.grad(loss), (W, X)),
    ],
)
def test_it_counts_as_the_compiler_does(function, arguments):
    program = compiled(function, *arguments)
    assert bytes_accessed(program.as_text()) == pytest.approx(
        program.cost_analysis()["bytes accessed"], rel=0.1
    )


def test_of_a_table_it_counts_the_rows_that_are_read():
    """XLA's own count of this program takes the whole table, 15 MB."""
    program = compiled(lambda table, ids: table[ids] * 2.0, TABLE, IDS)
    assert bytes_accessed(program.as_text()) == 4 * (2 * 64 * 128 + 64)


def test_a_loop_counts_as_often_as_it_runs_and_reads_one_layer_a_time():
    def scanned(x, stack):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), h), x, stack)

    def accessed(layers):
        stack = jax.ShapeDtypeStruct((layers, *W.shape), jnp.float32)
        return bytes_accessed(compiled(scanned, X, stack).as_text())

    once = bytes_accessed(compiled(lambda x, w: jnp.tanh(x @ w), X, W).as_text())
    stored = 2 * 4 * 256 * 128  # a layer's input, read and written
    assert accessed(12) > 12 * (once + stored)
    # Read whole by every layer, the stack would make this 4.
    assert accessed(24) / accessed(12) == pytest.approx(2.0, rel=0.05)


def test_what_starts_and_ends_counts_once():
    text = """HloModule step

ENTRY %main (p: f32[16]) -> f32[128] {
  %p = f32[16]{0} parameter(0)
  %copy = (f32[16]{0}, f32[16]{0}, u32[]) copy-start(%p)
  %copied = f32[16]{0} copy-done(%copy)
  %gather = (f32[16]{0}, f32[128]{0}) all-gather-start(%copied), dimensions={0}
  ROOT %gathered = f32[128]{0} all-gather-done(%gather)
}
"""
    assert bytes_accessed(text) == 4 * ((16 + 16) + (16 + 128))


def test_scratch_space_and_comments_are_passed_over():
    text = """HloModule step

ENTRY %main (p: bf16[8,8], q: bf16[8,8]) -> bf16[8,8] {
  %p = bf16[8,8]{1,0} parameter(0)
  %q = bf16[8,8]{1,0} parameter(1)
  %gemm = (bf16[8,8]{1,0}, s8[4194304]{0}) custom-call(%p, /*index=1*/%q), custom_call_target="__cublas$gemm"
  ROOT %out = bf16[8,8]{1,0} get-tuple-element(%gemm), index=0
}
"""
    assert bytes_accessed(text) == 3 * 2 * 64


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
replica_groups=mesh['axis_0'=2,'axis_1'=4], device_ids=([2,4]T(1,0)) {'axis_1'}, \
to_apply=%add, metadata={op_name="jit(step)/grad"}
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


def test_traffic_is_what_ring_algorithms_send():
    reduced = Collective("all-reduce", 800, 8, 2, "")
    halves = [Collective("reduce-scatter", 800, 8, 2, ""), Collective("all-gather", 800, 8, 2, "")]
    assert reduced.sent_bytes == 2 * 2 * 800 * 7 / 8
    assert sum(half.sent_bytes for half in halves) == reduced.sent_bytes
    (one,) = traffic([reduced, Collective("all-reduce", 100, 8, 1, "")])
    assert (one.count, one.payload_bytes) == (3, 1700)


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


def test_matmul_flops_count_one_platform_s_branch():
    left, right = jnp.zeros((8, 4), jnp.bfloat16), jnp.zeros((4, 2), jnp.bfloat16)
    assert cost.matmul_flops(jax.jit(bfloat16_dot).trace(left, right).jaxpr) == 2 * 8 * 4 * 2


def test_bytes_of_shapes():
    assert hlo.num_bytes("(f32[2,3]{1,0:T(8,128)}, pred[5], s4[3], bf16[], token[])") == 24 + 5 + 2 + 2
    assert hlo.elements("((f32[2], s8[3]{0:T(4,1)}), u32[])") == ["(f32[2], s8[3]{0:T(4,1)})", "u32[]"]
