"""Read documents from files: txt, jsonl and parquet; plain, gz, xz and zst.

Everything streams: no file, no line and no decompressed block is held whole beyond a stated limit. Leaves
which files to read to `corpus`.
"""

import contextlib
import dataclasses
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from eelbert_jax.data.documents import (
    Chunk,
    ReadOptions,
    ReadTally,
    chunk_document,
    chunk_documents,
    decode_utf8,
)
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
COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst")

BLOCK_BYTES = 1 << 20
ZSTD_INPUT_BYTES = 1 << 12
"""Compressed bytes given to zstd at a time: each can expand to 32 KiB, and the output cannot be limited."""
PARAGRAPH_BYTES = 1 << 20
"""A longer paragraph of a txt file is cut at white space, which changes no token."""
RECORD_BYTES = 1 << 26
"""A longer line of a jsonl file is an error: a record has to be held whole to be parsed."""
PARQUET_BATCH_ROWS = 256


@dataclasses.dataclass(frozen=True)
class FileUnit:
    """Read some whole files, one after the other; the end of a file ends a document.

    Attributes:
      files: (path, size in bytes) of each; small files are grouped so that their text shares rows.
    """

    files: tuple[tuple[str, int], ...]

    @property
    def num_bytes(self) -> int:
        """Sum of the sizes as they are on the disk, compressed where they are."""
        return sum(size for _, size in self.files)

    def describe(self) -> dict[str, Any]:
        """Return paths and sizes."""
        return {"files": [[path, size] for path, size in self.files]}

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the documents of the files in order.

        Raises:
          UserError: a file is missing, corrupt, truncated, not UTF-8 or not of its format; the message names
            the file and, where there is one, the line.
        """
        done = 0
        for path, size in self.files:
            tally.num_bytes = done
            yield from _read_file(path, done, options, tally)
            done += size
        tally.num_bytes = done


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


def _read_file(path: str, done: int, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Yield the documents of one file; `done` are the bytes of the unit before it."""
    kind = file_format(path, options)
    try:
        if kind == "parquet":
            yield from _read_parquet(path, options, tally)
            return
        with open(path, "rb") as raw:
            blocks = _whole_lines(
                _decompressed(raw, path, lambda: _count(tally, done + raw.tell())),
                RECORD_BYTES if kind == "jsonl" else PARAGRAPH_BYTES,
            )
            if kind == "jsonl":
                yield from _read_jsonl(blocks, path, options, tally)
            else:
                yield from chunk_documents(_paragraphs(blocks, path, options, tally))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _count(tally: ReadTally, num_bytes: int) -> None:
    tally.num_bytes = num_bytes


def _decompressed(raw: BinaryIO, path: str, advanced: Callable[[], None]) -> Iterator[bytes]:
    """Yield blocks of the file's content, calling `advanced` after each read.

    Raises:
      UserError: the compressed data are corrupt or end too early.
    """
    compression = Path(path).suffix
    try:
        if compression == ".zst":
            yield from _zstd_blocks(raw, advanced)
            return
        openers: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".xz": lzma.open}
        with openers.get(compression, contextlib.nullcontext)(raw) as stream:
            while block := stream.read(BLOCK_BYTES):
                advanced()
                yield block
    except EOFError as error:
        raise UserError(
            f"{path}: the compressed data end too early. Fetch or compress the file again."
        ) from error
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(
            f"{path}: corrupt {compression[1:]} data ({error}). Fetch or compress it again."
        ) from error


def _zstd_blocks(raw: BinaryIO, advanced: Callable[[], None]) -> Iterator[bytes]:
    """Yield the content of all frames; unlike the library's reader, notice a frame that is cut short."""
    frame = None
    while data := raw.read(ZSTD_INPUT_BYTES):
        advanced()
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            if block := frame.decompress(data):
                yield block
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError


def _whole_lines(blocks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    r"""Regroup blocks so that each ends with a "\n"; a line of more than `longest` bytes is cut.

    The cut is after a space where there is one, else between two UTF-8 sequences.
    """
    rest = b""
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
            continue
        rest += block
        if len(rest) > longest:
            cut = rest.rfind(b" ") + 1 or max(len(rest) - 4, 1)
            while cut < len(rest) and rest[cut] & 0xC0 == 0x80:
                cut += 1
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _decoded_blocks(
    blocks: Iterator[bytes], path: str, options: ReadOptions, tally: ReadTally
) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text) of each block; an error names line and byte of the content."""
    line, offset = 1, 0
    for block in blocks:

        def place(index: int, block: bytes = block, line: int = line, offset: int = offset) -> str:
            number = line + block.count(b"\n", 0, index)
            return f"{path}, line {number}, byte {offset + index} of the text"

        text = decode_utf8(block, place, options, tally)
        yield line, text.removeprefix("\ufeff") if offset == 0 else text
        line += block.count(b"\n")
        offset += len(block)


def _paragraphs(blocks: Iterator[bytes], path: str, options: ReadOptions, tally: ReadTally) -> Iterator[str]:
    """Yield the lines of a txt file, each with its end."""
    for _, text in _decoded_blocks(blocks, path, options, tally):
        *lines, last = text.split("\n")
        for line in lines:
            yield line + "\n"
        if last:
            yield last


def _read_jsonl(
    blocks: Iterator[bytes], path: str, options: ReadOptions, tally: ReadTally
) -> Iterator[Chunk]:
    """Yield the documents of a jsonl file: the text field of each line."""
    field = options.text_field or "text"
    for first, block in _decoded_blocks(blocks, path, options, tally):
        for number, line in enumerate(block.split("\n"), start=first):
            if line and not line.isspace():
                yield from chunk_document(_json_text(line, field, f"{path}, line {number}", options, tally))


def _json_text(line: str, field: str, where: str, options: ReadOptions, tally: ReadTally) -> str:
    """Return the text of one record.

    Raises:
      UserError: the line is no JSON object or has no such text.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        limit = f" (or longer than the limit of {RECORD_BYTES >> 20} MiB)" if len(line) > BLOCK_BYTES else ""
        raise UserError(f"{where}: not valid JSON{limit}: {error}. Mend or remove the line.") from error
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        got = f"fields {', '.join(record)}" if isinstance(record, dict) else f"a {type(record).__name__}"
        raise UserError(
            f"{where}: expected an object with a text field {field!r}, got {got}. "
            "Set --config.text_field to the field with the text, or remove the line."
        )
    text = record[field]
    if re.search("[\ud800-\udfff]", text):  # JSON can escape half of a surrogate pair, which is no text
        data = text.encode("utf-8", errors="surrogatepass")
        return decode_utf8(data, f"{where}, field {field!r}", options, tally)
    return text


def _read_parquet(path: str, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Yield the documents of a parquet file: the values of one column.

    Raises:
      UserError: the file is corrupt, or has no such column of text.
    """
    import pyarrow as pa  # only here: the import takes longer than many a small job
    import pyarrow.parquet as pq

    field = options.text_field or "text"
    done, size = tally.num_bytes, Path(path).stat().st_size
    row = 0
    try:
        with pq.ParquetFile(path) as table:
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
                tally.num_bytes = done + size * row // table.metadata.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise UserError(
            f"{path}: not a readable parquet file with text in column {field!r} ({error})."
        ) from error
