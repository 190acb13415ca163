"""Rows with named fields from TSV, CSV and jsonl files, with a count of all that was out of order.

A TSV of GLUE knows no quoting: a quote is a character like any other, and a reader that takes it for syntax
swallows rows. A CSV quotes by RFC 4180. Leaves what the fields mean to `glue` and `custom`.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eelbert_jax.errors import UserError

FORMATS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclasses.dataclass
class Tally:
    """Count what a reader met and how it dealt with it. Source: ours.

    Attributes:
      examples: rows that became examples.
      skipped_rows: training rows left out because a text or the label is missing, as TFDS does.
      extra_fields: rows with more fields than columns; the surplus is ignored.
      blank_lines: lines without a character, passed over.
      byte_order_marks: removed from the start of a file.
      unbalanced_quotes: texts with an odd number of `"`; kept as they are.
      empty_texts: texts of nothing but white space; kept, and read as no token.
    """

    examples: int = 0
    skipped_rows: int = 0
    extra_fields: int = 0
    blank_lines: int = 0
    byte_order_marks: int = 0
    unbalanced_quotes: int = 0
    empty_texts: int = 0

    def count_text(self, text: str) -> None:
        """Count what is unusual about one text."""
        self.unbalanced_quotes += text.count('"') % 2
        self.empty_texts += not text.strip()

    def describe(self) -> str:
        """Return one line: the examples, and every other count that is not zero."""
        counts = dataclasses.asdict(self)
        shown = {name: count for name, count in counts.items() if count or name == "examples"}
        return ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in shown.items())


class Row(NamedTuple):
    """One row: where it stands and its fields by column; a field that is not there has no key."""

    line: int
    fields: dict[str, str]


def read_rows(path: Path, columns: Sequence[str], required: Sequence[str], tally: Tally) -> Iterator[Row]:
    """Yield the rows of a table in order.

    Args:
      path: a file whose suffix is one of `FORMATS`.
      columns: names of the columns of a file without a header line; empty: its first line has them.
      required: columns that must be there; of a jsonl file every row is looked at instead.
      tally: counts byte-order marks, blank lines and rows with too many fields.

    Raises:
      UserError: the file cannot be read, is not UTF-8, not of its format, or lacks a column.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise UserError(
            f"{path}: cannot tell the format from the name; expected one of {', '.join(FORMATS)}."
        )
    text = read_text(path, tally)
    if kind == "jsonl":
        yield from _read_jsonl(path, text, tally)
        return
    records = _split_tsv(text) if kind == "tsv" else _split_csv(path, text)
    if not columns:
        _, columns = next(records, (0, []))
    missing = [name for name in required if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, columns))}. Check that this is the right file, with its header line."
        )
    for line, values in records:
        if not values:
            tally.blank_lines += 1
            continue
        tally.extra_fields += len(values) > len(columns)
        yield Row(line, dict(zip(columns, values, strict=False)))


def read_text(path: Path, tally: Tally) -> str:
    """Return the text of a UTF-8 file without its byte-order mark.

    Raises:
      UserError: it cannot be read, or is not UTF-8; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; give the path of a file.") from error
    if data.startswith(BYTE_ORDER_MARK):
        tally.byte_order_marks += 1
        data = data.removeprefix(BYTE_ORDER_MARK)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: invalid UTF-8, byte 0x{data[error.start]:02x}. "
            "Convert the file to UTF-8, for example with iconv."
        ) from error


def _split_tsv(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields), no field for a blank line; other line separators of Unicode are text."""
    if not text:
        return
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        line = line.removesuffix("\r")
        yield number, line.split("\t") if line else []


def _split_csv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number of the record's end, fields).

    Raises:
      UserError: a quote is not closed, or stands where none may.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for values in reader:
            yield reader.line_num, values
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, the record that starts on line {start}: {error}. A quote inside a quoted field is "
            'written twice (""); mend the record, or save the table as TSV, where quotes mean nothing.'
        ) from error


def _read_jsonl(path: Path, text: str, tally: Tally) -> Iterator[Row]:
    """Yield one row a line; a number or truth value is spelt as JSON spells it.

    Null, an array and an object are no field: they count as missing where a text or label is wanted.

    Raises:
      UserError: a line is no JSON object.
    """
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if not line.strip():
            tally.blank_lines += bool(text)
            continue
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()  # JSON can escape half a character
        except (json.JSONDecodeError, UnicodeEncodeError) as error:
            raise UserError(f"{path}, line {number}: not valid JSON: {error}. Mend the line.") from error
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number}: expected a JSON object, got {line[:40]!r}. Mend the line."
            )
        yield Row(number, {name: _scalar(value) for name, value in record.items() if _is_scalar(value)})


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def _scalar(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)
