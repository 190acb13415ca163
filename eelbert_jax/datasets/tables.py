"""Rows with named fields from TSV, CSV, JSON lines and parquet, with a count of all that was out of order.

A TSV of GLUE knows no quoting: a reader that takes a quote for syntax swallows rows. A CSV has RFC 4180's.
"""

import codecs
import csv
import dataclasses
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

from eelbert_jax.corpus import storage, streams
from eelbert_jax.errors import UserError

FORMATS = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMATS |= {".parquet": "parquet"}
ENCODINGS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
"""Encodings by byte-order mark; without one it is UTF-8."""
BLOCK_BYTES = 1 << 20
PARQUET_BATCH_ROWS = 1024
BAD_RECORD_POLICIES = ("refuse", "skip")
NO_TEXT = re.compile("[\ud800-\udfff]")
"""What invalid UTF-8 is decoded to, and what JSON can escape: half of a character."""


@dataclasses.dataclass
class Tally:
    """Count what a reader met and how it dealt with it.

    Attributes:
      on_bad_record: "refuse" or "skip" a record that cannot be used.
      skip_option: what a user sets to have them left out, for errors to say.
      skipped_rows: training rows of GLUE left out because a text or the label is missing, as TFDS does.
      extra_fields: rows with more fields than columns; the surplus is ignored.
      other_lines: lines of a column file that are no words: comments, multiword tokens, empty nodes.
      unbalanced_quotes: texts with an odd number of `"`; kept as they are.
      empty_texts: texts of nothing but white space; kept, and read as no token.
    """

    on_bad_record: str = "refuse"
    skip_option: str = "on_bad_record=skip"
    examples: int = 0
    skipped_rows: int = 0
    bad_records: int = 0
    extra_fields: int = 0
    blank_lines: int = 0
    other_lines: int = 0
    byte_order_marks: int = 0
    unbalanced_quotes: int = 0
    empty_texts: int = 0

    def __post_init__(self) -> None:
        if self.on_bad_record not in BAD_RECORD_POLICIES:
            raise UserError(
                f"on_bad_record={self.on_bad_record!r} is not one of {', '.join(BAD_RECORD_POLICIES)}."
            )

    def bad_record(self, problem: str) -> None:
        """Count a record that is left out, or refuse it."""
        if self.on_bad_record == "refuse":
            raise UserError(f"{problem} Or leave such records out by {self.skip_option}.")
        self.bad_records += 1

    def count_text(self, text: str) -> None:
        """Count what is unusual about one text."""
        self.unbalanced_quotes += text.count('"') % 2
        self.empty_texts += not text.strip()

    def describe(self) -> str:
        """Return one line: the examples, and every other count that is not zero."""
        counts = {name: count for name, count in dataclasses.asdict(self).items() if isinstance(count, int)}
        shown = {name: count for name, count in counts.items() if count or name == "examples"}
        return ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in shown.items())


class Row(NamedTuple):
    """One row: where it stands, and by column its fields and its lists; what is not there has no key."""

    place: str
    fields: dict[str, str]
    lists: Mapping[str, list[str]] = MappingProxyType({})


def read_rows(path: str, columns: Sequence[str], required: Sequence[str], tally: Tally) -> Iterator[Row]:
    """Yield the rows of a table in order.

    Args:
      path: of a file, or its URL; the suffix tells the format, with one of a compression behind it or not.
      columns: names of the columns of a TSV or CSV without a header line; empty: its first line has them.
      required: columns that must be there; of JSON lines the caller looks at every row.
    """
    kind = table_format(path)
    if kind == "parquet":
        yield from _read_parquet(path, required, tally)
        return
    if kind == "jsonl":
        yield from _read_jsonl(path, tally)
        return
    records = _split_tsv(path, tally) if kind == "tsv" else _split_csv(path, tally)
    if not columns:
        _, columns = next(records, (0, []))
    _check_columns(path, columns, required)
    for line, values in records:
        if not values:
            tally.blank_lines += 1
            continue
        place = f"{path}, line {line}"
        if is_text(place, "\t".join(values), tally):
            tally.extra_fields += len(values) > len(columns)
            yield Row(place, dict(zip(columns, values, strict=False)))


def table_format(path: str) -> str:
    """Return "tsv", "csv", "jsonl" or "parquet", by the name of a table."""
    suffix = PurePath(_uncompressed_name(path)).suffix
    if suffix not in FORMATS:
        raise UserError(
            f"{path}: cannot tell the format from the name; expected one of {', '.join(FORMATS)}, perhaps "
            f"with {', '.join(streams.COMPRESSION_SUFFIXES)} behind it."
        )
    return FORMATS[suffix]


def _uncompressed_name(path: str) -> str:
    return PurePath(path.lower()).stem if streams.is_compressed(path) else path.lower()


def open_file(path: str) -> io.BufferedReader:
    """Open a file, or what a URL names."""
    try:
        return storage.open_file(storage.canonical(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> UserError:
    return UserError(f"Cannot read {path}: {error.strerror or error}; give the path of a file.")


def read_lines(path: str, tally: Tally) -> Iterator[str]:
    """Yield a file's lines as they are read, without their ends and without the byte-order mark.

    Bytes that are no UTF-8 become what `is_text` finds; other line separators of Unicode are text.
    """
    return (line.removesuffix("\n").removesuffix("\r") for line in _raw_lines(path, tally))


def _raw_lines(path: str, tally: Tally) -> Iterator[str]:
    """Yield lines with their ends: carriage returns end them where they come first and no line feed near."""
    rest, end = "", ""
    for text in _decoded_blocks(path, tally):
        rest += text
        end = end or ("\n" if "\n" in rest else "\r" if "\r" in rest[:-1] else "")
        if end:
            *lines, rest = rest.split(end)
            yield from (line + end for line in lines)
    if rest:
        yield rest


def _decoded_blocks(path: str, tally: Tally) -> Iterator[str]:
    try:
        with open_file(path) as file:
            stored = iter(lambda: file.read(BLOCK_BYTES), b"")
            blocks = streams.decompress(file, path) if streams.is_compressed(path) else stored
            first = next(blocks, b"")
            mark = next((mark for mark in ENCODINGS if first.startswith(mark)), b"")
            tally.byte_order_marks += bool(mark)
            decoder = codecs.getincrementaldecoder(ENCODINGS.get(mark, "utf-8"))("surrogateescape")
            yield decoder.decode(first[len(mark) :])
            yield from map(decoder.decode, blocks)
            yield decoder.decode(b"", final=True)
    except OSError as error:
        raise _unreadable(path, error) from error


def is_text(place: str, text: str, tally: Tally) -> bool:
    """Return whether all of a record is text; if not, count the bad record, or refuse it."""
    found = NO_TEXT.search(text)
    if found is None:
        return True
    code = ord(found[0])
    what = f"invalid UTF-8, byte 0x{code - 0xDC00:02x}" if code >= 0xDC80 else f"half a character, U+{code:X}"
    tally.bad_record(f"{place}: {what}. Convert the file to UTF-8, for example with iconv.")
    return False


def _check_columns(path: str, columns: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(map(repr, missing))}; its columns are "
            f"{', '.join(map(repr, columns))}. Check that this is the right file, with its header line; of a "
            "table of your own, set --config.custom.text_column and label_column, or --config.custom.columns "
            "where it has no header line."
        )
    doubled = [name for name in required if columns.count(name) > 1]
    if doubled:
        raise UserError(f"{path} has two columns {doubled[0]!r}; rename one of them in its first line.")


def _split_tsv(path: str, tally: Tally) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields), no field for a blank line."""
    for number, line in enumerate(read_lines(path, tally), start=1):
        yield number, line.split("\t") if line else []


def _split_csv(path: str, tally: Tally) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number of the record's end, fields)."""
    csv.field_size_limit(sys.maxsize)  # the library's own limit is 131,072 characters
    # The library wants each line end of a file of mixed ones apart.
    lines = (part for line in _raw_lines(path, tally) for part in io.StringIO(line, newline=""))
    reader = csv.reader(lines, strict=True)
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


def _read_jsonl(path: str, tally: Tally) -> Iterator[Row]:
    """Yield a row a line, numbers as spelt; null, NaN and objects are no field."""
    for number, line in enumerate(read_lines(path, tally), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            tally.blank_lines += 1
            continue
        if not is_text(place, line, tally):
            continue
        try:
            record = json.loads(line, parse_int=str, parse_float=str, parse_constant=lambda _: None)
        except (json.JSONDecodeError, RecursionError) as error:
            tally.bad_record(f"{place}: not valid JSON: {error}. Mend the line.")
            continue
        if not isinstance(record, dict):
            tally.bad_record(f"{place}: expected a JSON object, got {line[:40]!r}. Mend the line.")
            continue
        yield from _row_of(place, record, tally)


def _read_parquet(path: str, required: Sequence[str], tally: Tally) -> Iterator[Row]:
    """Yield one row a row, counted from 1, of the required columns; null and NaN are no field."""
    import pyarrow as pa  # only here: the import takes longer than many a small job
    import pyarrow.parquet as pq

    try:
        with storage.open_file(storage.canonical(path)) as file, pq.ParquetFile(file) as table:
            _check_columns(path, table.schema_arrow.names, required)
            number = 0
            for batch in table.iter_batches(PARQUET_BATCH_ROWS, columns=list(required)):
                for record in batch.to_pylist():
                    number += 1
                    yield from _row_of(f"{path}, row {number}", record, tally)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error}). Write it again.") from error


def _row_of(place: str, record: Mapping[str, Any], tally: Tally) -> Iterator[Row]:
    fields = {name: _field(value) for name, value in record.items() if _is_field(value)}
    lists = {
        name: [_field(item) for item in value]
        for name, value in record.items()
        if isinstance(value, list) and all(map(_is_field, value))
    }
    if is_text(place, "".join(itertools.chain(fields.values(), *lists.values())), tally):
        yield Row(place, fields, lists)


def _is_field(value: Any) -> bool:
    return isinstance(value, str | bytes | int | float) and not (
        isinstance(value, float) and math.isnan(value)
    )


def _field(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="surrogateescape")
    return value if isinstance(value, str) else json.dumps(value)
