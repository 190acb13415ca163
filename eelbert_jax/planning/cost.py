"""What a compiled program costs a chip: bytes read and written, bytes sent, arithmetic, and their time."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from eelbert_jax.planning import hlo
from eelbert_jax.planning.devices import HOP_SECONDS, Chip

COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")

_FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call"),
        *("after-all", "partition-id", "replica-id", "async-start", "async-update", "async-done"),
        *("all-reduce-done", "all-gather-done", "copy-done"),
    )
)
"""They move nothing themselves: names, what runs another computation, the ends of what was counted."""

_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATE = "dynamic-update-slice"
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}"
)  # an order of devices may stand between
_AXIS = re.compile(r"'([^']+)'=(\d+)")
_USED = re.compile(r"'([^']+)'(?::\(\d+\)(\d+))?")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_LIST = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_ORIGIN = re.compile(r'op_name="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FUSED_REDUCE_SCATTER = "all-reduce-scatter"
"""In it the TPU compiler fuses an all-reduce and the slice that a chip keeps."""


def bytes_accessed(text: str) -> int:
    """Return the bytes that a program (`Compiled.as_text()`) reads and writes, for compilers that do not say.

    A fusion reads of an operand what it slices out of it, an update in place touches what it replaces, and
    what stays in a cache counts too. Source: XLA's `HloCostAnalysis`, but loops as often as they run.
    """
    computations = {
        name: {one.name: one for one in map(hlo.instruction, lines)}
        for name, lines in hlo.computations(text)[1].items()
    }
    return sum(
        one.times * _accessed(one, computations)
        for one in hlo.executed(text)
        if not one.is_fused and one.opcode not in _FREE
    )


_Computation = dict[str, hlo.Instruction]


def _accessed(one: hlo.Instruction, computations: dict[str, _Computation]) -> int:
    around = computations[one.computation]
    inside = next((computations[name] for name in hlo.callees(one) if name in computations), None)
    if one.opcode != "fusion" or inside is None:
        return _written(one, around) + sum(
            _read(one, position, around[name].shape)
            for position, name in enumerate(one.operands)
            if name in around
        )
    parameters = [other for other in inside.values() if other.opcode == "parameter"]
    read = sum(_read_of_parameter(parameter, inside) for parameter in parameters)
    return read + sum(_written(root, inside) for root in _roots(inside))


def _read(user: hlo.Instruction, position: int, shape: str) -> int:
    if position == 0 and user.opcode in _SLICES:
        return hlo.num_bytes(user.shape)
    return 0 if position == 0 and user.opcode == _UPDATE else hlo.num_bytes(shape)


def _written(one: hlo.Instruction, around: _Computation) -> int:
    """Return what one writes: not a start's repeated operand, nor a library's scratch space, as s8."""
    if one.opcode.endswith("-start") and one.shape.startswith("("):
        return hlo.num_bytes(hlo.elements(one.shape)[0 if one.opcode == "copy-start" else 1])
    if one.opcode == "custom-call":
        return sum(hlo.num_bytes(part) for part in hlo.elements(one.shape) if not part.startswith("s8["))
    return hlo.num_bytes(around[one.operands[1]].shape if one.opcode == _UPDATE else one.shape)


def _read_of_parameter(parameter: hlo.Instruction, inside: _Computation) -> int:
    uses = _uses(parameter.name, inside)
    read = sum(_read(user, position, parameter.shape) for user, position in uses)
    return min(hlo.num_bytes(parameter.shape), read)


def _uses(name: str, inside: _Computation) -> Iterator[tuple[hlo.Instruction, int]]:
    """Yield the users of a value and its place among their operands, through bitcasts."""
    for user in inside.values():
        for position, operand in enumerate(user.operands):
            if operand == name and user.opcode == "bitcast":
                yield from _uses(user.name, inside)
            elif operand == name:
                yield user, position


def _roots(inside: _Computation) -> list[hlo.Instruction]:
    """Return what a fusion writes, through tuples and bitcasts; the root is its last instruction."""
    pending, found = [list(inside.values())[-1]], []
    while pending:
        one = pending.pop()
        if one.opcode in ("tuple", "bitcast"):
            pending += [inside[name] for name in one.operands]
        else:
            found.append(one)
    return found


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction, run `times` a step by `group_size` chips together.

    Attributes:
      payload_bytes: of the result, but of a reduce-scatter the operand; once, however often it runs.
      origin: what it was compiled from, in JAX's words; "" where the compiler does not say.
    """

    kind: str
    payload_bytes: int
    group_size: int
    times: int
    origin: str

    @property
    def sent_bytes(self) -> float:
        """Bytes that a chip sends in a step, by the ring algorithms, which send the least possible."""
        share = (self.group_size - 1) / self.group_size
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)
        return self.times * self.payload_bytes * factor


def find_collectives(text: str, num_devices: int) -> list[Collective]:
    """Return the collectives of `Compiled.as_text()` with more than one of the `num_devices` in a group."""
    found = []
    for instruction in hlo.executed(text):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            continue
        size = num_devices if kind == "collective-permute" else _group_size(instruction.text, num_devices)
        shape = instruction.shape
        if instruction.opcode != kind and kind != "all-reduce":
            shape = hlo.elements(shape)[1]  # a start carries its operands, then its results
        payload = hlo.num_bytes(shape)
        if kind == "reduce-scatter":
            payload *= size
        if kind == "all-reduce" and instruction.computation.startswith(_FUSED_REDUCE_SCATTER):
            kind = "reduce-scatter"
        origin = _ORIGIN.search(instruction.text)
        if size > 1:
            times = instruction.times
            found.append(Collective(kind, payload, size, times, origin.group(1) if origin else ""))
    return found


def _group_size(line: str, num_devices: int) -> int:
    """Read the group size of the three ways to write groups: by mesh axes, as a reshaped range, as lists."""
    mesh = _MESH.search(line)
    if mesh:
        extents = {name: int(size) for name, size in _AXIS.findall(mesh.group(1))}
        return math.prod(int(part) if part else extents[name] for name, part in _USED.findall(mesh.group(2)))
    iota = _IOTA.search(line)
    if iota:
        return int(iota.group(2))
    groups = _LIST.search(line)
    return len(groups.group(1).split(",")) if groups and groups.group(1) else num_devices


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of one kind and group size in a step: instructions run, bytes as of `Collective`."""

    kind: str
    group_size: int
    count: int
    payload_bytes: int
    sent_bytes: float


def traffic(collectives: Iterable[Collective]) -> list[Traffic]:
    """Sum collectives by kind and group size, the most bytes first."""
    groups: dict[tuple[str, int], list[Collective]] = {}
    for one in collectives:
        groups.setdefault((one.kind, one.group_size), []).append(one)
    sums = [
        Traffic(
            kind,
            size,
            sum(one.times for one in members),
            sum(one.times * one.payload_bytes for one in members),
            sum(one.sent_bytes for one in members),
        )
        for (kind, size), members in groups.items()
    ]
    return sorted(sums, key=lambda one: -one.sent_bytes)


def matmul_flops(jaxpr: Any) -> float:
    """Return the operations of a jaxpr's matrix products on all devices, loops as often as they run.

    Of branches the one with the most: each platform has its own, as of a bfloat16 product.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            width = math.prod(left[axis] for axis in contracted)
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * width
        parts = [matmul_flops(part) for part in _programs(equation.params)]
        inner = max(parts) if equation.primitive.name == "cond" else sum(parts)
        total += inner * equation.params["length"] if equation.primitive.name == "scan" else inner
    return total


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns") or hasattr(one, "jaxpr"):
                yield one


def estimated_cycles(text: str) -> int:
    """Return the cycles of the TPU compiler's schedule without collectives, 0 of others; copies add up."""
    total = 0
    for instruction in hlo.executed(text):
        found = None if instruction.is_fused else _CYCLES.search(instruction.text)
        total += instruction.times * int(found.group(1)) if found else 0
    return total


def collective_seconds(collectives: Iterable[Collective], chip: Chip, shape: Sequence[int]) -> float:
    """Return the time of collectives in a slice of this shape, one after the other and nothing beside them.

    Bytes over the bandwidth of a chip's rings, and as many hops as a ring has neighbours, axis after axis,
    twice for an all-reduce. Source: the ring algorithms of Patarasu and Yuan (2009).
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
      memory: bytes at the chip's bandwidth; the compiler counts its fast memory too, and a loop's body once.
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
