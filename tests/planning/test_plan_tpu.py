"""Plans for TPU slices that are not here: needs libtpu, which `make test-plan` installs."""

import importlib.util

import pytest

from support.plans import WIDTH, payload, planned, run_plan

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: make test-plan"
    ),
]


@pytest.mark.parametrize("embedding", ["ngram_hash", "table"])  # a table is input and output
def test_float32_gradients_are_reduced_once_and_nothing_else_is_sent(embedding):
    plan = planned("v5e:2x4", f"--config.model.embedding={embedding}")
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


def test_zero1_over_a_pod_scatters_within_groups_of_chips():
    plan = planned("v5e:16x16", "--config.mesh.zero1=True", "--config.batch_size=256")
    assert plan["mesh"] == {"data": 16, "slots": 16, "fsdp": 1}
    assert {one["group_size"] for one in plan["traffic"] if one["kind"] == "reduce-scatter"} == {16}
    params, gathered = plan["memory"]["params"], payload(plan, "all-gather")
    assert plan["memory"]["optimizer"] < 0.2 * 2 * params
    assert payload(plan, "reduce-scatter") > 0.8 * params
    # A plain all-reduce sends twice the parameters; gathering them is another time.
    assert sum(one["sent_bytes"] for one in plan["traffic"]) < 1.2 * params + gathered


def test_a_step_that_does_not_fit_names_the_knobs():
    done = run_plan("v5e:2x4", "--config.batch_size=2097152", "--config.data.eval_batch_size=256")
    assert done.returncode == 2
    assert "does not fit" in done.stderr
    for knob in ("model.dtype=bfloat16", "rows_per_device=", "mesh.zero1=True", "mesh.fsdp=", "more chips"):
        assert knob in done.stderr


@pytest.mark.parametrize("topology", ["v99:2x4", "v5e:3x5"])
def test_an_unknown_topology_is_a_clear_error(topology):
    done = run_plan(topology)
    assert done.returncode == 2
    assert f"libtpu cannot compile for the topology '{topology}'" in done.stderr
    assert "v5e:16x16" in done.stderr


def test_more_chips_than_rows_are_refused():
    done = run_plan("v5e:16x16", "--config.batch_size=128")
    assert done.returncode == 2
    assert "batch_size=128 rows do not split over 256 devices" in done.stderr
