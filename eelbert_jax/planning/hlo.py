"""Read a compiled program's text: which instructions run, how often, and the bytes of their results.

The text form of HLO is what every backend gives (`Compiled.as_text`); there is no other stable way to ask
what a program puts on the wire.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = ")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_INTEGER = re.compile(r"[su]\d+\[\](?:\{[^}]*\})? constant\((\d+)\)")

_ENDS = ("async-done", "async-update")
"""They name the computation that their start has called."""

_BITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a program.

    Attributes:
      opcode: such as "all-reduce".
      shape: text of its result, a tuple in parentheses.
      text: the whole line.
      times: how often it runs; in a loop of unknown length once a loop.
      computation: name of the computation that holds it.
      is_fused: it is part of a fusion, whose cost stands at the fusion.
    """

    opcode: str
    shape: str
    text: str
    times: int
    computation: str
    is_fused: bool


def executed(text: str) -> Iterator[Instruction]:
    """Yield what runs from the entry on, through calls, fusions and loops; of a conditional all branches.

    Args:
      text: of `Compiled.as_text()`.

    Raises:
      ValueError: the text has no entry.
    """
    entry, computations = _computations(text)
    yield from _walk(computations, entry, 1, False)


def _walk(computations: dict[str, list[str]], name: str, times: int, fused: bool) -> Iterator[Instruction]:
    for line in computations.get(name, ()):
        shape, opcode = _shape_and_opcode(line)
        yield Instruction(opcode, shape, line, times, name, fused)
        inner = times * (_trip_count(computations, line) or 1) if opcode == "while" else times
        for callee in _callees(line, opcode):
            yield from _walk(computations, callee, inner, fused or opcode == "fusion")


def _computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """Return the entry's name, and the instruction lines of every computation."""
    found: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            lines = found[header.group(2)] = []
            entry = header.group(2) if header.group(1) else entry
        elif _INSTRUCTION.match(line):
            lines.append(line.strip())
    if not entry:
        raise ValueError("no ENTRY computation in the program's text")
    return entry, found


def _shape_and_opcode(line: str) -> tuple[str, str]:
    """Split "name = SHAPE opcode(...": no parenthesis of a shape follows a space and a word."""
    right = line.partition(" = ")[2]
    opcode = _OPCODE.search(right)
    return right[: opcode.start()] if opcode else right, opcode.group(1) if opcode else ""


def _callees(line: str, opcode: str) -> list[str]:
    if opcode in _ENDS:
        return []
    names = [name for word, name in _CALLED.findall(line) if word != "to_apply" or opcode == "call"]
    branches = _BRANCHES.search(line)
    return names + ([name.strip(" %") for name in branches.group(1).split(",")] if branches else [])


def _trip_count(computations: dict[str, list[str]], line: str) -> int | None:
    """Return how often a loop runs: as the compiler says, or the one integer in its condition."""
    known = _TRIP_COUNT.search(line)
    if known:
        return int(known.group(1))
    condition = _CONDITION.search(line)
    lines = computations.get(condition.group(1), []) if condition else []
    bounds = {int(found.group(1)) for found in map(_INTEGER.search, lines) if found}
    return bounds.pop() if len(bounds) == 1 else None


def elements(shape: str) -> list[str]:
    """Return the top-level elements of a tuple's shape; an array is its own only element."""
    if not shape.startswith("("):
        return [shape]
    parts, depth, start = [], 0, 1
    for end, letter in enumerate(shape):
        depth += (letter in "([{") - (letter in ")]}")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(shape[start:end].strip())
            start = end + 1
        if depth == 0:
            break
    return parts


def num_bytes(shape: str) -> int:
    """Return the bytes of all arrays in a shape, without the padding of their layout."""
    total = 0
    for dtype, extents in _ARRAY.findall(shape):
        count = math.prod(int(extent) for extent in extents.split(",") if extent)
        total += math.ceil(count * _bits(dtype) / 8)
    return total


def _bits(dtype: str) -> int:
    """Return the bits of a type by its name: f32, bf16, s8, f8e4m3fn, c64, pred; 0 of a token."""
    if dtype == "pred":
        return 8
    width = _BITS.search(dtype)
    return int(width.group()) if width else 0
