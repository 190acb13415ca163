"""A plan and what follows from it, as a page of text."""

import json

import pytest

from eelbert_jax.planning import cost, devices, page
from eelbert_jax.planning.plan import Memory, Plan


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
