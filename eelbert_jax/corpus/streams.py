"""The text of files as blocks of whole lines: plain, gz, xz and zst, in bounded memory.

A file that is not compressed can be read in parts by several processes. Leaves what the lines mean to
`files`.
"""

import contextlib
import dataclasses
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import zstandard

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import ReadOptions, ReadTally, decode_utf8
from eelbert_jax.errors import UserError

COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst")
BLOCK_BYTES = 1 << 20
ZSTD_INPUT_BYTES = 1 << 12
"""Compressed bytes given to zstd at a time: each can expand to 32 KiB, and the output cannot be limited."""
BOUNDARY_BYTES = 1 << 22
"""Where no document ends within so many bytes of the place where a file is to be cut, one is cut."""


class FilePart(NamedTuple):
    """A range of bytes of a file, moved to where documents begin.

    It has the documents that begin after the first boundary at or after `start`, up to the first boundary at
    or after `stop`; so the parts of a file meet.
    """

    path: str
    start: int
    stop: int


class TextBlock(NamedTuple):
    """Some lines of a file: the text, the number of its first line and whom to ask for a line's name."""

    text: str
    first_line: int
    origin: "Origin"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Name lines to a user.

    Attributes:
      path: the file, or its URL.
      begin: bytes of the file before line 1; their lines are counted only when a name is asked for.
    """

    path: str
    begin: int

    def line(self, number: int) -> str:
        """Return "FILE, line N"."""
        before, left = 0, self.begin
        with storage.open_file(self.path) as file:
            while left and (block := file.read(min(BLOCK_BYTES, left))):
                before += block.count(b"\n")
                left -= len(block)
        return f"{self.path}, line {before + number}"


def is_compressed(path: str) -> bool:
    """Return whether a file's name says that it is compressed."""
    return path.endswith(COMPRESSION_SUFFIXES)


def read_blocks(
    part: FilePart, by_document: bool, longest: int, options: ReadOptions, tally: ReadTally
) -> Iterator[TextBlock]:
    """Yield the text of a part in blocks that end with a line.

    Args:
      part: what to read; of a compressed file, all.
      by_document: whether a blank line is the boundary of documents; else every line is one.
      longest: a longer line is cut, in bytes: after a space where there is one.
      options: has the policy for invalid UTF-8.
      tally: advanced by the bytes of the part consumed.

    Raises:
      UserError: the file is corrupt, truncated or not UTF-8; the message names it and the line.
      OSError: the file cannot be read.
    """
    consumed_before = tally.num_bytes
    with storage.open_file(part.path) as raw:
        if is_compressed(part.path):
            begin, end = 0, part.stop
            stream = _decompress(raw, part.path)
        else:
            begin, end = (_boundary(raw, place, by_document) for place in (part.start, part.stop))
            stream = _stored_blocks(raw, begin, end)
        origin = Origin(part.path, begin)
        number, first = 1, True
        for data in _whole_lines(stream, longest):
            text = _decode(data, number, origin, options, tally)
            yield TextBlock(text.removeprefix("\ufeff") if first and not begin else text, number, origin)
            number, first = number + data.count(b"\n"), False
            share = (raw.tell() - begin) / max(end - begin, 1)
            tally.num_bytes = consumed_before + int(share * (part.stop - part.start))


def _decode(data: bytes, number: int, origin: Origin, options: ReadOptions, tally: ReadTally) -> str:
    """Decode whole lines, of which the first has the given number."""

    def place(index: int) -> str:
        line = number + data.count(b"\n", 0, index)
        column = index - data.rfind(b"\n", 0, index)  # from 1
        return f"{origin.line(line)}, byte {column} of the line"

    return decode_utf8(data, place, options, tally)


def _boundary(raw: BinaryIO, position: int, by_document: bool) -> int:
    """Return where the first document begins that a reader from `position` on can recognise."""
    if position == 0:
        return 0
    raw.seek(position - 1)
    while (rest := raw.readline(BLOCK_BYTES)) and not rest.endswith(b"\n"):
        pass  # the rest of a line that begins before, or only its end
    next_line = raw.tell()
    while by_document and (line := raw.readline(BOUNDARY_BYTES)):
        if line.isspace():
            return raw.tell()
        if raw.tell() - position > BOUNDARY_BYTES:
            return next_line
    return raw.tell()


def _stored_blocks(raw: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `begin` to `end`."""
    raw.seek(begin)
    while block := raw.read(min(BLOCK_BYTES, end - raw.tell())):
        yield block


def _decompress(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield blocks of a compressed file's content.

    Raises:
      UserError: the data are corrupt or end too early.
    """
    try:
        if path.endswith(".zst"):
            yield from _decompress_zstd(raw)
            return
        opener: Callable[[BinaryIO], Any] = gzip.open if path.endswith(".gz") else lzma.open
        with contextlib.closing(opener(raw)) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except EOFError as error:
        raise UserError(f"{path}: the compressed data end too early. Fetch or compress it again.") from error
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(f"{path}: corrupt compressed data ({error}). Fetch or compress it again.") from error


def _decompress_zstd(raw: BinaryIO) -> Iterator[bytes]:
    """Yield the content of all frames; unlike the library's reader, notice a frame that is cut short."""
    frame = None
    while data := raw.read(ZSTD_INPUT_BYTES):
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            if block := frame.decompress(data):
                yield block
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError


def _whole_lines(blocks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    r"""Regroup blocks so that each ends with "\n"; a line of more than `longest` bytes is cut.

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
