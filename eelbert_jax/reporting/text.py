"""Tables as Markdown and CSV, and how numbers and names are written in them."""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence

NONE = "-"
"""What a cell says where there can be nothing."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Hold finished cells, as many in a row as columns; `notes` stand below the table."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown."""
    lines = [f"### {table.title}", ""]
    if table.rows:
        rule = ["---"] * len(table.columns)
        lines += [_line(cells) for cells in (table.columns, rule, *table.rows)] + [""]
    lines += [f"- {note}" for note in table.notes] + [""] * bool(table.notes)
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def csv_text(records: Sequence[Mapping[str, object]]) -> str:
    """Return records, all with the same keys, as CSV with a header; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return buffer.getvalue()


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many decimals, `NONE` where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def count(value: int | None) -> str:
    """Return an integer with separators, `NONE` where there is none."""
    return NONE if value is None else f"{value:,}"


def millions(value: int | None) -> str:
    """Return a large number as 20.5M, `NONE` where there is none."""
    return NONE if value is None else f"{value / 1e6:,.1f}M"


def tell_apart(choices: Sequence[Sequence[str]]) -> list[str]:
    """Return for each thing the first of its names that no other has, else its last."""
    names = [first for first, *_ in choices]
    for level in range(1, max(map(len, choices), default=0)):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else own[min(level, len(own) - 1)]
            for name, own in zip(names, choices, strict=True)
        ]
    return names
