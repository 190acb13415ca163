"""A plan as a page of text."""

from collections.abc import Sequence

from eelbert_jax.planning.plan import Plan

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(count: float) -> str:
    """Return bytes in units of 1000."""
    unit = 0
    while abs(count) >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{1000 * seconds:.3f} ms"


def page(plan: Plan, title: str) -> str:
    """Return the figures of a plan, a line each."""
    axes = " x ".join(f"{name} {count}" for name, count in plan.mesh.items())
    lines = [
        title,
        f"{plan.num_chips} x {plan.device_kind}, mesh {axes}; a step takes {plan.batch_size} rows of "
        f"{plan.row_length} tokens, {plan.batch_size // plan.num_chips} a chip",
        "",
        *_memory_lines(plan),
        "",
        *_work_lines(plan),
        "",
        *_traffic_lines(plan),
        "",
        *_time_lines(plan),
    ]
    return "\n".join(lines)


def _row(label: str, value: str, unit: str = "") -> str:
    return f"  {label:<38}{value:>12}{unit}"


def _memory_lines(plan: Plan) -> list[str]:
    memory = plan.memory
    of = f" of {size(memory.capacity)} ({memory.total / memory.capacity:.1%})" if memory.capacity else ""
    if memory.usable is not None and memory.usable != memory.capacity:
        of += f"; JAX takes {size(memory.usable)}"
    return [
        "memory a chip",
        _row("parameters", size(memory.params)),
        _row("optimizer", size(memory.optimizer)),
        _row("hashed constants", size(memory.constants)),
        _row("temporary (activations, gradients)", size(memory.temporary)),
        _row("rows, program, padding", size(memory.other)),
        _row("total", size(memory.total), of),
    ]


def _work_lines(plan: Plan) -> list[str]:
    flops = _row("FLOPs as the compiler counts", "unknown")
    if plan.flops is not None:
        flops = _row(
            "FLOPs as the compiler counts", f"{plan.flops / 1e9:,.1f}", " GFLOP; the body of a loop once"
        )
    return [
        "work a chip and step",
        flops,
        _row("of the program's matrix products", f"{plan.matmul_flops / 1e9:,.1f}", " GFLOP"),
        _row("bytes accessed", size(plan.bytes_accessed), f", as {plan.bytes_counted_by} counts"),
    ]


def _traffic_lines(plan: Plan) -> list[str]:
    if not plan.traffic:
        return ["collectives a step: none"]
    lines = [
        f"  {one.kind:<20}{one.count:>4} in groups of {one.group_size:<5}{size(one.payload_bytes):>12} "
        f"of arrays, {size(one.sent_bytes)} sent by a chip"
        for one in plan.traffic
    ]
    return ["collectives a step", *lines]


def _time_lines(plan: Plan) -> list[str]:
    times = plan.estimate
    if times is None or plan.tokens_per_second is None or plan.hours is None:
        return [f"time: no published figures of {plan.device_kind!r} are known here, so none is estimated"]
    bound = "arithmetic" if times.compute >= times.memory else "memory"
    lines = [
        "time of a step (estimates; nothing was run)",
        _row("arithmetic at the bf16 peak", milliseconds(times.compute)),
        _row("memory at its bandwidth", milliseconds(times.memory)),
        _row("collectives, not overlapped", milliseconds(times.collectives)),
        _row("the roofline, the sum", milliseconds(times.roofline), f", bound by {bound}"),
    ]
    if times.scheduled is not None:
        lines.append(_row("the compiler's schedule", milliseconds(times.scheduled), ", without collectives"))
    if plan.optimal_seconds is not None:
        lines.append(_row("the compiler's optimal_seconds", milliseconds(plan.optimal_seconds)))
    source = "the roofline" if times.scheduled is None else "the compiler's schedule and the collectives"
    return [
        *lines,
        _row("planned with", milliseconds(times.step), f", {source}"),
        "",
        f"{plan.tokens_per_second:,.0f} tokens/s; {plan.total_steps:,} steps in {plan.hours:,.1f} hours",
    ]


def alternatives(rows: Sequence[tuple[str, Plan | str]]) -> str:
    """Return the table of what changes cost: the name of each, and its plan or why there is none."""
    lines = [
        f"{'change':<28}{'memory a chip':>14}{'sent a chip':>13}{'step':>13}{'tokens/s':>14}{'hours':>10}"
    ]
    for name, plan in rows:
        if isinstance(plan, str):
            lines.append(f"{name:<28}{plan}")
            continue
        sent = sum(one.sent_bytes for one in plan.traffic)
        line = f"{name:<28}{size(plan.memory.total):>14}{size(sent):>13}"
        if plan.estimate:
            line += f"{milliseconds(plan.estimate.step):>13}"
            line += f"{plan.tokens_per_second:>14,.0f}{plan.hours:>10,.1f}"
        lines.append(line)
    return "\n".join(lines)
