"""Read documents from files, here or in an object store: txt, jsonl and parquet; plain, gz, xz and zst.

Leaves bytes, decompression and lines to `streams`, and which files to read to `corpus`.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import (
    Chunk,
    ReadOptions,
    ReadTally,
    chunk_document,
    chunk_documents,
    decode_utf8,
)
from eelbert_jax.corpus.streams import COMPRESSION_SUFFIXES, FilePart, is_compressed, read_blocks
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
"""A longer line of a jsonl file is an error: a record has to be held whole to be parsed."""
PARQUET_BATCH_ROWS = 256


@dataclasses.dataclass(frozen=True)
class FileUnit:
    """Read some parts of files, one after the other; the end of a file ends a document.

    Attributes:
      parts: the parts; small files are grouped so that their text shares rows.
    """

    parts: tuple[FilePart, ...]

    @property
    def num_bytes(self) -> int:
        """Sum of the sizes as they are on the disk, compressed where they are."""
        return sum(part.stop - part.start for part in self.parts)

    def describe(self) -> dict[str, Any]:
        """Return paths and ranges."""
        return {"files": [list(part) for part in self.parts]}

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the documents of the parts in order.

        Raises:
          UserError: a file is missing, corrupt, truncated, not UTF-8 or not of its format; the message names
            the file and, where there is one, the line.
        """
        for part in self.parts:
            end = tally.num_bytes + part.stop - part.start
            yield from _read_part(part, options, tally)
            tally.num_bytes = end


def find_file_units(
    files: Iterable[storage.FoundFile], min_bytes: int, max_bytes: int, options: ReadOptions
) -> Iterator[FileUnit]:
    """Divide files, in the order given, into units that are worth a process and can be worked on at once.

    Args:
      files: paths or URLs and sizes, from `storage.find_files`.
      min_bytes: consecutive files are grouped up to at least this size.
      max_bytes: txt and jsonl that are not compressed are cut into parts of this size.
      options: has the format.

    Raises:
      UserError: a file is empty or its format cannot be told.
    """
    group: list[FilePart] = []
    for path, size in files:
        kind = file_format(path, options)
        if not size:
            raise UserError(f"{path} is empty. Fetch it again, or leave it out of the glob.")
        step = size if kind == "parquet" or is_compressed(path) else max_bytes
        for start in range(0, size, step):
            group.append(FilePart(path, start, min(start + step, size)))
            if sum(part.stop - part.start for part in group) >= min_bytes:
                yield FileUnit(tuple(group))
                group = []
    if group:
        yield FileUnit(tuple(group))


def file_format(path: str, options: ReadOptions) -> str:
    """Return "txt", "jsonl" or "parquet" for a file, by its name or as the options say.

    Raises:
      UserError: the name does not tell, or the option is not legal.
    """
    if options.file_format not in FILE_FORMATS:
        raise UserError(f"file_format={options.file_format!r} is not one of {', '.join(FILE_FORMATS)}.")
    if options.file_format != "auto":
        return options.file_format
    suffixes = [suffix for suffix in Path(path).suffixes if suffix not in COMPRESSION_SUFFIXES]
    if not suffixes or suffixes[-1] not in FORMAT_SUFFIXES:
        raise UserError(
            f"{path}: cannot tell the format from the name (known: {', '.join(FORMAT_SUFFIXES)}, each also "
            f"with {', '.join(COMPRESSION_SUFFIXES)}). Set --config.file_format to txt, jsonl or parquet."
        )
    return FORMAT_SUFFIXES[suffixes[-1]]


def _read_part(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Yield the documents of one part."""
    kind = file_format(part.path, options)
    try:
        if kind == "parquet":
            yield from _read_parquet(part, options, tally)
        elif kind == "jsonl":
            yield from _read_jsonl(part, options, tally)
        else:
            yield from chunk_documents(_paragraphs(part, options, tally))
    except OSError as error:
        raise UserError(f"Cannot read {part.path}: {error.strerror or error}.") from error


def _paragraphs(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[str]:
    """Yield the lines of a txt file, each with its end."""
    for block in read_blocks(part, True, PARAGRAPH_BYTES, options, tally):
        *lines, last = block.text.split("\n")
        for line in lines:
            yield line + "\n"
        if last:
            yield last


def _read_jsonl(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Yield the documents of a jsonl file: the text field of each line."""
    field = options.text_field or "text"
    for block in read_blocks(part, False, RECORD_BYTES, options, tally):
        for number, line in enumerate(block.text.split("\n"), start=block.first_line):
            if line and not line.isspace():
                where = functools.partial(block.origin.line, number)
                yield from chunk_document(_json_text(line, field, where, options, tally))


def _json_text(
    line: str, field: str, where: Callable[[], str], options: ReadOptions, tally: ReadTally
) -> str:
    """Return the text of one record; `where` names it.

    Raises:
      UserError: the line is no JSON object or has no such text.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        limit = (
            f" (or longer than the limit of {RECORD_BYTES >> 20} MiB)"
            if len(line) >= RECORD_BYTES // 4
            else ""
        )
        raise UserError(f"{where()}: not valid JSON{limit}: {error}. Mend or remove the line.") from error
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        got = f"fields {', '.join(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
        raise UserError(
            f"{where()}: expected an object with a text field {field!r}, got {got}. "
            "Set --config.text_field to the field with the text, or remove the line."
        )
    text = record[field]
    if re.search("[\ud800-\udfff]", text):  # JSON can escape half of a surrogate pair, which is no text
        data = text.encode("utf-8", errors="surrogatepass")
        return decode_utf8(data, lambda _: f"{where()}, field {field!r}", options, tally)
    return text


def _read_parquet(part: FilePart, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Yield the documents of a parquet file: the values of one column.

    Raises:
      UserError: the file is corrupt, or has no such column of text.
    """
    import pyarrow as pa  # only here: the import takes longer than many a small job
    import pyarrow.parquet as pq

    field = options.text_field or "text"
    path, consumed_before = part.path, tally.num_bytes
    row = 0
    try:
        with storage.open_file(path) as file, pq.ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise UserError(
                    f"{path}: no column {field!r}; it has {', '.join(table.schema_arrow.names)}. "
                    "Set --config.text_field to the column with the text."
                )
            for batch in table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=[field]):
                for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                    if value is None:
                        raise UserError(f"{path}, row {row}: column {field!r} is null. Remove the row.")
                    place = f"{path}, row {row}, column {field!r}"
                    yield from chunk_document(decode_utf8(value, place, options, tally))
                    row += 1
                tally.num_bytes = consumed_before + part.stop * row // table.metadata.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UserError(
            f"{path}: not a readable parquet file with text in column {field!r} ({error})."
        ) from error
