"""Read a compiled program's text, the one stable way to ask what it puts on the wire."""

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
_COMMENT = re.compile(r"/\*.*?\*/")
_INTEGER = re.compile(r"[su]\d+\[\](?:\{[^}]*\})? constant\((\d+)\)")

_ENDS = ("async-done", "async-update")
"""They name the computation that their start has called."""

_BITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a program; `is_fused`: part of a fusion, whose cost stands at the fusion.

    Attributes:
      shape: text of its result, a tuple in parentheses.
      times: how often it runs; in a loop of unknown length once a loop.
      computation: name of the computation that holds it.
    """

    name: str
    opcode: str
    shape: str
    text: str
    times: int = 1
    computation: str = ""
    is_fused: bool = False

    @property
    def operands(self) -> list[str]:
        """Names of the operands."""
        start = self.text.index(f" {self.opcode}(") + len(self.opcode) + 1
        parts = elements(_COMMENT.sub("", self.text[start:]))
        return [part.split()[-1].lstrip("%") for part in parts if part]


def executed(text: str) -> Iterator[Instruction]:
    """Yield what runs from the entry on, through calls, fusions and loops; of a conditional all branches."""
    entry, found = computations(text)
    yield from _walk(found, entry, 1, False)


def _walk(computations: dict[str, list[str]], name: str, times: int, fused: bool) -> Iterator[Instruction]:
    for line in computations.get(name, ()):
        one = dataclasses.replace(instruction(line), times=times, computation=name, is_fused=fused)
        yield one
        inner = times * (_trip_count(computations, line) or 1) if one.opcode == "while" else times
        for callee in callees(one):
            yield from _walk(computations, callee, inner, fused or one.opcode == "fusion")


def computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """Return the entry's name, and the instruction lines of every computation of `Compiled.as_text()`."""
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


def instruction(line: str) -> Instruction:
    """Read "name = SHAPE opcode(...": no parenthesis of a shape follows a space and a word."""
    left, _, right = line.partition(" = ")
    opcode = _OPCODE.search(right)
    shape = right[: opcode.start()] if opcode else right
    return Instruction(left.split()[-1].lstrip("%"), opcode.group(1) if opcode else "", shape, line)


def callees(one: Instruction) -> list[str]:
    """Return the computations that an instruction runs."""
    if one.opcode in _ENDS:
        return []
    names = [name for word, name in _CALLED.findall(one.text) if word != "to_apply" or one.opcode == "call"]
    branches = _BRANCHES.search(one.text)
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
    if dtype == "pred":
        return 8
    width = _BITS.search(dtype)
    return int(width.group()) if width else 0
