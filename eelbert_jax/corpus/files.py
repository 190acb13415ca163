"""Documents of files, here or in an object store: txt, jsonl and parquet."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import (
    BadRecord,
    Chunk,
    Place,
    ReadOptions,
    ReadTally,
    chunk_documents,
    chunk_record,
    decode_at,
)
from eelbert_jax.corpus.streams import COMPRESSION_SUFFIXES, FilePart, Line, is_compressed, read_lines
from eelbert_jax.errors import UserError

FILE_FORMATS = ("auto", "txt", "jsonl", "parquet")
FORMAT_SUFFIXES = {
    ".txt": "txt",
    ".text": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
PARAGRAPH_BYTES = 1 << 20
"""A longer paragraph of a txt file is cut at white space, which changes no token."""
RECORD_BYTES = 1 << 26
"""A longer line of a jsonl file is bad: a record has to be held whole to be parsed."""
PARQUET_BATCH_ROWS = 256
_JSON = json.JSONDecoder(parse_int=float)
"""Integers of any length pass: Python refuses to make an `int` of more than 4,300 digits."""


@dataclasses.dataclass(frozen=True)
class FileUnit:
    """Read parts of files, the small grouped so that their text shares rows; a file's end ends a document."""

    parts: tuple[FilePart, ...]
    versions: dict[str, str]

    @property
    def num_bytes(self) -> int:
        """Sum of the sizes as they are on the disk."""
        return sum(part.stop - part.start for part in self.parts)

    def describe(self) -> dict[str, Any]:
        """Return paths and ranges."""
        return {"files": [list(part) for part in self.parts]}

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the documents of the parts in order; a `UserError` names the file, and the line if any."""
        for part in self.parts:
            end = tally.num_bytes + part.stop - part.start
            try:
                yield from _READERS[file_format(part.path, options)](part, options, tally)
            except OSError as error:
                raise UserError(f"Cannot read {part.path}: {error.strerror or error}.") from error
            tally.num_bytes = end


def find_file_units(
    files: Iterable[storage.FoundFile], min_bytes: int, max_bytes: int, options: ReadOptions
) -> Iterator[FileUnit]:
    """Group files, in order, into units of at least `min_bytes`; cut plain txt and jsonl by `max_bytes`."""
    group: list[FilePart] = []
    versions: dict[str, str] = {}
    for path, size, version in files:
        kind = file_format(path, options)
        if not size:
            raise UserError(f"{path} is empty. Fetch it again, or leave it out of the glob.")
        step = size if kind == "parquet" or is_compressed(path) else max_bytes
        for start in range(0, size, step):
            group.append(FilePart(path, start, min(start + step, size)))
            versions[path] = version
            if sum(part.stop - part.start for part in group) >= min_bytes:
                yield FileUnit(tuple(group), versions)
                group, versions = [], {}
    if group:
        yield FileUnit(tuple(group), versions)


def file_format(path: str, options: ReadOptions) -> str:
    """Return "txt", "jsonl" or "parquet" for a file, by its name or as the options say."""
    if options.file_format not in FILE_FORMATS:
        raise UserError(f"file_format={options.file_format!r} is not one of {', '.join(FILE_FORMATS)}.")
    if options.file_format != "auto":
        return options.file_format
    suffixes = [suffix for suffix in Path(path.lower()).suffixes if suffix not in COMPRESSION_SUFFIXES]
    if not suffixes or suffixes[-1] not in FORMAT_SUFFIXES:
        raise UserError(
            f"{path}: cannot tell the format from the name (known: {', '.join(FORMAT_SUFFIXES)}, each also "
            f"with {', '.join(COMPRESSION_SUFFIXES)}). Set --config.file_format to txt, jsonl or parquet."
        )
    return FORMAT_SUFFIXES[suffixes[-1]]


def _read_txt(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    def paragraphs() -> Iterator[str]:
        for line in read_lines(part, True, PARAGRAPH_BYTES, options, tally):
            tally.num_records += not line.text.isspace()
            yield line.text

    return chunk_documents(paragraphs())


def _read_jsonl(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    field = options.text_field or "text"
    for line in read_lines(part, False, RECORD_BYTES, options, tally):
        if not line.text.isspace():
            text = functools.partial(_json_text, line, field, options, tally)
            yield from chunk_record(text, options, tally)


def _json_text(line: Line, field: str, options: ReadOptions, tally: ReadTally) -> str:
    try:
        record = _JSON.decode(line.text)
    except (ValueError, RecursionError) as error:
        is_cut = len(line.text) >= RECORD_BYTES // 4
        limit = f" (or longer than the limit of {RECORD_BYTES >> 20} MiB)" if is_cut else ""
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BadRecord(line.place, f"not valid JSON{limit}: {reason}. Mend or remove the line.") from error
    text = record.get(field) if isinstance(record, dict) else None
    if not isinstance(text, str):
        got = f"a {type(record).__name__}"
        if isinstance(record, dict):
            kind = "null" if text is None else f"a {type(text).__name__}"
            got = f"{field!r} is {kind}" if field in record else f"fields {', '.join(record)}"
        raise BadRecord(
            line.place,
            f"expected an object with a text field {field!r}, got {got}. "
            "Set --config.text_field to the field with the text, or remove the line.",
        )
    if re.search("[\ud800-\udfff]", text):  # JSON can escape half of a surrogate pair, which is no text
        data = text.encode("utf-8", errors="surrogatepass")
        return decode_at(line.place, data, options, tally)
    return text


def _read_parquet(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    import pyarrow as pa  # only here: the import takes longer than many a small job
    import pyarrow.parquet as pq

    field = options.text_field or "text"
    consumed_before, row = tally.num_bytes, 0
    try:
        with storage.open_file(part.path) as file, pq.ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise UserError(
                    f"{part.path}: no column {field!r}; it has {', '.join(table.schema_arrow.names)}. "
                    "Set --config.text_field to the column with the text."
                )
            for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=[field]):
                for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                    place = functools.partial("{}, row {}, column {!r}".format, part.path, row, field)
                    text = functools.partial(_cell_text, place, value, options, tally)
                    yield from chunk_record(text, options, tally)
                    row += 1
                tally.num_bytes = consumed_before + part.stop * row // table.metadata.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UserError(
            f"{part.path}: not a readable parquet file with text in column {field!r} ({error})."
        ) from error


def _cell_text(place: Place, value: bytes | None, options: ReadOptions, tally: ReadTally) -> str:
    if value is None:
        raise BadRecord(place, "the text is null. Remove the row.")
    return decode_at(place, value, options, tally)


_READERS = {"txt": _read_txt, "jsonl": _read_jsonl, "parquet": _read_parquet}
