"""From what a step computes, moves and sends to how long it takes: our roofline, the compiler's schedule."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from eelbert_jax.planning import hlo
from eelbert_jax.planning.chips import HOP_SECONDS, Chip
from eelbert_jax.planning.collectives import Collective

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


def matmul_flops(jaxpr: Any) -> float:
    """Return the floating-point operations of all matrix products of a program, over all devices.

    A product and a sum count as two. Loops count as often as they run, where the compilers' own analyses
    count a body once.

    Args:
      jaxpr: of `jitted.trace(...).jaxpr`.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            width = math.prod(left[axis] for axis in contracted)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * width
        inner = sum(matmul_flops(part) for part in _programs(equation.params))
        total += inner * equation.params["length"] if equation.primitive.name == "scan" else inner
    return total


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """Yield the programs that an equation carries in its parameters, of which a conditional has several."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                yield one


def estimated_cycles(text: str) -> int:
    """Return the cycles that the TPU compiler expects of its schedule, without collectives; 0 of others.

    What runs side by side (copies between memories) is counted one after the other.

    Args:
      text: of `Compiled.as_text()`.
    """
    total = 0
    for instruction in hlo.executed(text):
        found = None if instruction.is_fused else _CYCLES.search(instruction.text)
        total += instruction.times * int(found.group(1)) if found else 0
    return total


def collective_seconds(collectives: Iterable[Collective], chip: Chip, shape: Sequence[int]) -> float:
    """Return the time that collectives take, one after the other, with nothing else going on.

    Bytes sent over the bandwidth of a chip's rings, and for each the way around: a ring reduces or gathers in
    as many hops as it has neighbours, axis after axis; an all-reduce does both. Source: ours, on the ring
    algorithms of Patarasu and Yuan (2009).

    Args:
      collectives: of a step.
      chip: sends them.
      shape: chips along each axis of the slice.
    """
    seconds = 0.0
    for one in collectives:
        axes = shape if one.group_size == math.prod(shape) else (one.group_size,)
        hops = sum(length - 1 for length in axes) * (2 if one.kind == "all-reduce" else 1)
        seconds += one.sent_bytes / chip.send_bandwidth(shape) + one.times * hops * HOP_SECONDS
    return seconds


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long a step takes on a chip, in seconds.

    Attributes:
      compute: arithmetic at the chip's bfloat16 peak.
      memory: bytes accessed at the chip's memory bandwidth. The compiler counts what stays in the chip's fast
        memory too, and the body of a loop once.
      collectives: `collective_seconds`.
      scheduled: cycles of the compiler's schedule at the chip's clock; None where it gives none.
    """

    compute: float
    memory: float
    collectives: float
    scheduled: float | None

    @property
    def roofline(self) -> float:
        """The slower of arithmetic and memory, then the collectives: nothing overlaps with them."""
        return max(self.compute, self.memory) + self.collectives

    @property
    def step(self) -> float:
        """The figure to plan with: the compiler's schedule where there is one, else the roofline."""
        return self.roofline if self.scheduled is None else self.scheduled + self.collectives


def estimate(
    chip: Chip,
    shape: Sequence[int],
    flops: float,
    bytes_accessed: float,
    cycles: int,
    collectives: Sequence[Collective],
) -> Estimate:
    """Return the times of a step on one chip of a slice.

    Args:
      chip: that runs it.
      shape: chips along each axis of the slice.
      flops: floating-point operations of one chip.
      bytes_accessed: of one chip.
      cycles: of `estimated_cycles`; 0: unknown.
      collectives: of a step.
    """
    return Estimate(
        compute=flops / chip.peak_flops,
        memory=bytes_accessed / chip.memory_bandwidth,
        collectives=collective_seconds(collectives, chip, shape),
        scheduled=cycles / chip.clock_hz if cycles and chip.clock_hz else None,
    )
