"""Bytes that a compiled program reads and writes, for where its compiler does not say: GPUs not here."""

from collections.abc import Iterator

from eelbert_jax.planning import hlo

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


def bytes_accessed(text: str) -> int:
    """Return the bytes that all instructions read and write, loops as often as they run.

    An instruction reads its operands and writes its result once; a fusion reads of an operand what it slices
    out of it, and an update in place touches what it replaces. What stays in a cache is counted too. Source:
    the rules of XLA's `HloCostAnalysis`, which counts the body of a loop once.

    Args:
      text: of `Compiled.as_text()`.
    """
    computations = {name: _by_name(lines) for name, lines in hlo.computations(text)[1].items()}
    total = 0
    for one in hlo.executed(text):
        if not one.is_fused and one.opcode not in _FREE:
            total += one.times * _of(one, computations)
    return total


_Computation = dict[str, hlo.Instruction]


def _by_name(lines: list[str]) -> _Computation:
    found = [hlo.instruction(line) for line in lines]
    return {one.name: one for one in found}


def _of(one: hlo.Instruction, computations: dict[str, _Computation]) -> int:
    """Return the bytes of one execution of an instruction."""
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
    """Return what an instruction reads of the operand at `position`."""
    if position == 0 and user.opcode in _SLICES:
        return hlo.num_bytes(user.shape)
    return 0 if position == 0 and user.opcode == _UPDATE else hlo.num_bytes(shape)


def _written(one: hlo.Instruction, around: _Computation) -> int:
    """Return what an instruction writes.

    A start repeats its operand beside its result, a library its scratch space, as s8: neither counts.
    """
    if one.opcode.endswith("-start") and one.shape.startswith("("):
        return hlo.num_bytes(hlo.elements(one.shape)[0 if one.opcode == "copy-start" else 1])
    if one.opcode == "custom-call":
        return sum(hlo.num_bytes(part) for part in hlo.elements(one.shape) if not part.startswith("s8["))
    return hlo.num_bytes(around[one.operands[1]].shape if one.opcode == _UPDATE else one.shape)


def _read_of_parameter(parameter: hlo.Instruction, inside: _Computation) -> int:
    """Return what a fusion reads of an operand: all of it at most, however often it is used."""
    whole = hlo.num_bytes(parameter.shape)
    uses = _uses(parameter.name, inside)
    return min(whole, sum(_read(user, position, parameter.shape) for user, position in uses))


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
