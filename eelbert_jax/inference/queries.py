"""Where the texts of `eelbert predict` come from, in chunks: what can be read at once is answered at once."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from eelbert_jax.datasets.conll import read_words
from eelbert_jax.datasets.tables import FORMATS, Tally, open_file, read_rows
from eelbert_jax.errors import UserError

CHUNK_BYTES = 1 << 16
CHUNK_ROWS = 1024
COLUMN_SUFFIXES = {".conll": 0, ".conllu": 1, ".iob": 0, ".iob2": 0, ".bio": 0}
"""Suffixes of files of columns, and where the word stands in them."""
LINE_SUFFIXES = (".txt", ".tsv")
"""Of tables too, where a column is named."""


class Query(NamedTuple):
    """Hold a text, a pair or a sentence's words, and where it stands for an error to say."""

    place: str
    first: str | tuple[str, ...]
    second: str | None = None


Item = Query | str | UserError
"""A query; a text in its place says why there is none; an error, why there are no more."""
Chunks = Iterator[list[Item]]


class Source(NamedTuple):
    """Hold what the flags say of where texts come from, "" for nothing; `reads_pairs` is of the model."""

    text: str
    second_text: str
    file: str
    text_column: str
    second_text_column: str
    reads_pairs: bool

    @property
    def columns(self) -> list[str]:
        """Columns of the one text or the two."""
        second = self.second_text_column or ("second_text" if self.reads_pairs else "")
        return [self.text_column or "text", *([second] if second else [])]

    def check(self) -> None:
        """Raise a `UserError` if texts come from two places, or the file cannot be opened."""
        if self.text and self.file:
            raise UserError("--text and --file both name texts; give one of them.")
        if self.second_text and not self.text:
            raise UserError("--second_text goes with --text; in a file a tab separates the two texts.")
        if self.file and not Path(self.file).is_fifo():  # which can be opened once
            open_file(self.file).close()


def read_queries(source: Source, stdin: BinaryIO, tally: Tally) -> Chunks:
    """Yield the queries of the flags, else of the file, else of standard input.

    Raises:
      UserError: the text is none, or the file cannot be read.
    """
    if source.text:
        query = _query("--text", source.text, source.second_text or None)
        if isinstance(query, str):
            raise UserError(query)
        return iter([[query]])
    if not source.file:
        if stdin.isatty():
            print("Reading texts from the terminal, one a line; Ctrl-D ends.", file=sys.stderr)
        return _lines(stdin, "standard input", source.columns if source.text_column else None)
    suffix = Path(source.file).suffix.lower()
    if suffix in COLUMN_SUFFIXES or source.text_column.removeprefix("-").isdecimal():
        column = int(source.text_column or COLUMN_SUFFIXES[suffix])
        return _chunked(_sentences(source.file, column, tally))
    if source.text_column or (suffix not in LINE_SUFFIXES and _is_table(source.file)):
        return _chunked(_rows(source, tally))
    return _file_lines(source.file)


def _sentences(file: str, column: int, tally: Tally) -> Iterator[Item]:
    try:
        for place, words in read_words(file, column, tally):
            yield words if isinstance(words, str) else Query(place, words)
    except UserError as error:
        yield error


def _is_table(file: str) -> bool:
    return bool(FORMATS.keys() & {suffix.lower() for suffix in Path(file).suffixes[-2:]})


def _file_lines(file: str) -> Chunks:
    yield from _lines(open_file(file), file, None)


def _lines(stream: Any, name: str, columns: Sequence[str] | None) -> Chunks:
    """Yield a query a line, one chunk for what one read gives; a line without text is an error.

    So answers can be pasted beside the lines. With `columns` lines are JSON objects with these fields, else
    texts, or pairs with a tab between.
    """
    with stream:
        numbers, rest = itertools.count(1), b""
        while data := stream.read1(CHUNK_BYTES):
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                yield [_line(f"{name}, line {next(numbers)}", line, columns) for line in lines]
        if rest:
            yield [_line(f"{name}, line {next(numbers)}", rest, columns)]


def _line(place: str, line: bytes, columns: Sequence[str] | None) -> Query | str:
    try:
        text = line.decode("utf-8-sig" if place.endswith("line 1") else "utf-8").rstrip("\r")
    except UnicodeDecodeError:
        return f"{place} is no UTF-8 text; convert the file."
    if columns is not None:
        return _json_line(place, text, columns)
    texts = text.split("\t")
    if len(texts) > 2 or not all(part.strip() for part in texts):
        return (
            f"{place} is {text[:80]!r}; expected a text, or two separated by one tab, and no empty line; "
            "of a table name a column by --text_column."
        )
    return Query(place, *texts)


def _json_line(place: str, text: str, columns: Sequence[str]) -> Query | str:
    try:
        values = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        return f"{place} is {text[:80]!r}: no JSON ({error}), which --text_column asks for."
    if not isinstance(values, dict):
        return f"{place} is {text[:80]!r}; expected a JSON object, which --text_column asks for."
    return _of_columns(place, values, columns)


def _rows(source: Source, tally: Tally) -> Iterator[Item]:
    try:
        for row in read_rows(source.file, (), source.columns, tally):
            yield _of_columns(row.place, row.fields, source.columns)
    except UserError as error:
        yield error


def _of_columns(place: str, values: Mapping[str, Any], columns: Sequence[str]) -> Query | str:
    for column in columns:
        if not isinstance(values.get(column), str) or not values[column].strip():
            return (
                f"{place} has no text in column {column!r}; its columns are {', '.join(map(repr, values))}: "
                "name another by --text_column or --second_text_column."
            )
    return _query(place, *(values[column] for column in columns))


def _query(place: str, first: str, second: str | None = None) -> Query | str:
    """Return a query, or why it is none: an argument may be any bytes, JSON escape half a character."""
    for text in (first, "x" if second is None else second):
        if not text.strip():
            return f"{place} is blank; give the text to answer."
        try:
            text.encode()
        except UnicodeEncodeError:
            return f"{place} is no UTF-8 text ({ascii(text)[:80]}); convert it."
    return Query(place, first, second)


def _chunked(items: Iterable[Item]) -> Chunks:
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, CHUNK_ROWS)):
        yield chunk
