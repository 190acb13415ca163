"""Where arrays lie: rules on abstract meshes, global arrays on virtual devices in a process of their own."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from eelbert_jax.errors import UserError
from eelbert_jax.model import bert
from eelbert_jax.model.config import sized
from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from eelbert_jax.training.sharding import ROW_AXES, Layout, make_mesh
from eelbert_jax.training.step import apply_gradients, initializer

PROGRAM = """
import numpy as np, jax
from eelbert_jax.errors import UserError
from eelbert_jax.training import sharding
mesh = sharding.make_mesh()
values = np.arange(2 * 8 * 3).reshape(2, 8, 3)
read = []
def part(index):
    read.append(values[index])
    return values[index]
array = sharding.global_array(part, values.shape, sharding.Layout(mesh).rows(row_axis=1))
assert np.array_equal(array, values)
assert sorted(block.shape for block in read) == [(2, 2, 3)] * 4, "each device reads its own rows"
assert np.array_equal(np.sort(np.concatenate([block.ravel() for block in read])), values.ravel())
def loss(table, ids, used_as_input):
    return jax.numpy.sum(jax.numpy.tanh(used_as_input(table)[ids] @ table.T))
at_rows, whole = sharding.Layout(mesh).rows(0), sharding.Layout(mesh).replicated
ids, table = np.arange(24).reshape(8, 3) % 7, np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
uses = (lambda table: table, lambda table: sharding.with_gradient_at(table, whole), jax.lax.stop_gradient)
expected, found, other = (
    jax.jit(jax.grad(lambda table, ids: loss(table, ids, use)), out_shardings=whole)(table, rows)
    for use, rows in zip(uses, (ids, jax.device_put(ids, at_rows), ids))
)
np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
assert not np.allclose(other, expected, rtol=1e-2), "the use as input counts"
sharding.MOST_SLOT_SHARES = 2
grouped = sharding.make_layout(zero1=True)
assert dict(grouped.mesh.shape) == {"data": 2, "slots": 2, "fsdp": 1}
array = sharding.put_rows(values, grouped, row_axis=1)
assert [block.data.shape for block in array.addressable_shards] == [(2, 2, 3)] * 4
assert np.array_equal(array.addressable_shards[1].data, values[:, 2:4]), "the order of rows stays"
large = np.random.default_rng(1).normal(size=(128, 256)).astype("float32")
slots = grouped.slots({"kernel": large})["kernel"]
rows = sharding.put_rows(ids, grouped, row_axis=0)
sums = jax.jit(jax.grad(lambda kernel, ids: loss(kernel, ids, uses[0])), out_shardings=slots)(large, rows)
assert {block.data.shape for block in sums.addressable_shards} == {(64, 256)}, "halves, each of them twice"
plain = jax.jit(jax.grad(lambda kernel, ids: loss(kernel, ids, uses[0])))(large, ids)
np.testing.assert_allclose(sums, plain, rtol=1e-4, atol=1e-4)
try:
    sharding.check_divisible("batch_size", 10, mesh)
except UserError as error:
    print(error)
"""


def test_each_device_reads_only_its_own_rows_and_a_gradient_of_two_uses_is_their_sum():
    env = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
    )
    assert "batch_size=10 rows do not split over 4 devices; make it a multiple of 4." in done.stdout


def layout(data: int, fsdp: int, **options) -> Layout:
    return Layout(AbstractMesh((data, fsdp), ROW_AXES), **options)


def specs(shardings) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(shardings)
    return {"/".join(str(key.key) for key in path): tuple(leaf.spec) for path, leaf in leaves}


@pytest.fixture(scope="module")
def params():
    model = bert.BertForMaskedLM(sized("mini", embedding="table"))
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]


def test_one_device_a_group_copies_the_parameters(params):
    assert set(specs(layout(8, 1).params(params)).values()) == {()}


def test_parameters_are_split_by_width_or_input_and_small_ones_copied(params):
    found = specs(layout(2, 4).params(params))
    first = "bert/encoder/layer_0"
    assert found["bert/embeddings/word_embeddings/embedding"] == (None, "fsdp")
    wide = specs(layout(2, 4).params({"word_embeddings": {"projection": jnp.zeros((512, 256))}}))
    assert wide == {"word_embeddings/projection": ("fsdp", None)}
    assert found["bert/embeddings/position_embeddings/embedding"] == (None, "fsdp")
    assert found[f"{first}/attention/self/query/kernel"] == ("fsdp", None)
    assert found[f"{first}/output/dense/kernel"] == ("fsdp", None)
    assert found[f"{first}/attention/self/query/bias"] == ()
    assert found["bert/embeddings/LayerNorm/scale"] == ()


def test_zero1_splits_slots_over_data_where_an_axis_divides(params):
    zero1 = layout(64, 1, zero1=True)
    assert set(specs(zero1.params(params)).values()) == {()}
    slots = specs(zero1.slots(params))
    assert slots["bert/embeddings/word_embeddings/embedding"] == (None, "data")  # 30522 x 256: by width
    assert slots["bert/encoder/layer_0/attention/self/query/kernel"] == ("data", None)
    assert slots["bert/encoder/layer_0/attention/self/query/bias"] == (), "too small for a collective"
    both = specs(layout(16, 4, zero1=True).slots(params))
    assert both["bert/encoder/layer_0/attention/self/query/kernel"] == ("fsdp", "data")
    tiny = layout(256, 1, zero1=True).slots({"word_embeddings": {"embedding": jnp.zeros((30522, 128))}})
    assert specs(tiny)["word_embeddings/embedding"] == (), "no axis of 30522 x 128 splits over 256"


def test_slots_of_a_pod_are_split_within_groups_and_where_shares_are_whole_tiles(params):
    mesh = AbstractMesh((16, 16, 1), ("data", "slots", "fsdp"))
    pod = Layout(mesh, zero1=True, whole_shares=(16, 128))
    kernels = {"kernel": jnp.zeros((768, 3072)), "layer": {"kernel": jnp.zeros((12, 768, 3072))}}
    found = specs(pod.slots({**kernels, **params}))
    assert (found["kernel"], found["layer/kernel"]) == (("slots", None), (None, "slots", None))
    assert found["bert/embeddings/word_embeddings/embedding"] == (), "shares of 16 columns"
    assert found["bert/encoder/layer_0/attention/self/query/kernel"] == ("slots", None)
    assert specs(pod.slots({"kernel": jnp.zeros((128, 2048))}))["kernel"] == (None, "slots"), "of 8 rows"
    assert tuple(pod.rows(1).spec) == (None, ("data", "slots", "fsdp"))


def test_optimizer_slots_are_found_by_their_parameters_paths(params):
    zero1 = layout(8, 2, zero1=True)
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), 10)
    init = initializer(lambda key: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params), optimizer)
    placed = zero1.state(jax.eval_shape(init, jax.random.key(0)))
    parts = jax.tree.leaves(placed.opt_state, is_leaf=lambda part: hasattr(part, "mu"))
    [slots] = [part for part in parts if hasattr(part, "mu")]
    assert specs(slots.mu) == specs(slots.nu) == specs(zero1.slots(params))
    assert tuple(slots.count.spec) == ()


def test_a_width_that_does_not_split_is_said(params):
    with pytest.raises(UserError, match=r"of shape .* does not split over mesh.fsdp=3 devices"):
        layout(1, 3).params(params)


def test_groups_that_do_not_fit_the_devices_are_said():
    with pytest.raises(UserError, match=r"mesh\.fsdp=3 does not divide the 1 devices"):
        make_mesh(3)


def test_a_step_that_is_not_finite_changes_nothing_but_the_count():
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), 10)
    state = initializer(lambda key: {"kernel": jax.random.normal(key, (4, 4))}, optimizer)(jax.random.key(0))
    good = {"kernel": jnp.ones((4, 4))}
    state, metrics = apply_gradients(state, jnp.float32(1.0), good, optimizer)
    assert metrics["skipped"] == 0
    for loss, grads in ((jnp.nan, good), (1.0, {"kernel": good["kernel"].at[1, 2].set(jnp.inf)})):
        after, metrics = apply_gradients(state, jnp.float32(loss), grads, optimizer)
        assert metrics["skipped"] == 1
        assert after.step == state.step + 1
        jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
        jax.tree.map(np.testing.assert_array_equal, after.opt_state, state.opt_state)
        state = after
