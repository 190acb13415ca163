"""What a compiled program puts on the wire: kinds, bytes a chip, group sizes."""

import dataclasses
import math
import re
from collections.abc import Iterable

from eelbert_jax.planning import hlo

KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")

_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")
_AXIS = re.compile(r"'([^']+)'=(\d+)")
_USED = re.compile(r"'([^']+)'(?::\(\d+\)(\d+))?")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=")
_LIST = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_ORIGIN = re.compile(r'op_name="([^"]*)"')
_FUSED_REDUCE_SCATTER = "all-reduce-scatter"
"""Name of the computation in which the TPU compiler fuses an all-reduce and the slice that a chip keeps."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of `KINDS`.
      payload_bytes: of the whole array that a group reduces, gathers or exchanges: the result, but of a
        reduce-scatter the operand. Once, however often it runs.
      group_size: chips that take part together.
      times: how often a step runs it.
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
    """Return the collectives of a program with more than one chip in a group.

    Args:
      text: of `Compiled.as_text()`.
      num_devices: that the program is compiled for.
    """
    found = []
    for instruction in hlo.executed(text):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
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
            found.append(
                Collective(kind, payload, size, instruction.times, origin.group(1) if origin else "")
            )
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
    """All collectives of one kind and group size in a step.

    Attributes:
      kind: one of `KINDS`.
      group_size: chips that take part together.
      count: instructions run.
      payload_bytes: of the arrays reduced, gathered or exchanged.
      sent_bytes: that a chip sends.
    """

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
