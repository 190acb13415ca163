"""Lines of text files, plain, gz, xz or zst, in bounded memory; plain files also in parts."""

import contextlib
import dataclasses
import functools
import gzip
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import zstandard

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import LINE_ENDS, BadRecord, ReadOptions, ReadTally, decode_at
from eelbert_jax.errors import UserError

COMPRESSION_SUFFIXES = (".gz", ".xz", ".zst")
BLOCK_BYTES = 1 << 20
ZSTD_INPUT_BYTES = 1 << 12
"""Compressed bytes given to zstd at a time: each can expand to 32 KiB, and the output has no limit."""
ZSTD_WINDOW_BYTES = 1 << 31
"""The longest window that `zstd --long` writes; only a file that has one takes the memory."""
BOUNDARY_BYTES = 1 << 22
"""Where no document ends within so many bytes of the place where a file is to be cut, one is cut."""
_LINE_ENDS = re.compile(LINE_ENDS.pattern.encode())


class FilePart(NamedTuple):
    """A range of bytes of a file, moved to the next boundaries of documents, so that parts meet."""

    path: str
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Origin:
    """Name lines to a user; those before byte `begin` of the file are counted when a name is asked for."""

    path: str
    begin: int

    def line(self, number: int, byte: int | None = None) -> str:
        """Return "FILE, line N", and the byte of the line where there is one."""
        if self.begin:
            with storage.open_file(self.path) as file:
                blocks = _universal_newlines(_stored_blocks(file, 0, self.begin))
                number += sum(block.count(b"\n") for block in blocks)
        return f"{self.path}, line {number}" + (f", byte {byte} of the line" if byte else "")


class Line(NamedTuple):
    r"""A line with its "\n", without one at the end of a file and where a long line is cut."""

    text: str
    number: int
    origin: Origin

    def place(self) -> str:
        """Return "FILE, line N"."""
        return self.origin.line(self.number)


def is_compressed(path: str) -> bool:
    """Return whether a file's name says that it is compressed."""
    return path.lower().endswith(COMPRESSION_SUFFIXES)


def read_lines(
    part: FilePart, by_document: bool, longest: int, options: ReadOptions, tally: ReadTally
) -> Iterator[Line]:
    """Yield the lines of a part that are UTF-8; what is corrupt or refused is a `UserError`.

    Args:
      part: what to read; of a compressed file, all.
      by_document: whether a blank line is the boundary of documents; else every line is one.
      longest: a longer line is cut, in bytes: after a space where there is one.
    """
    consumed_before = tally.num_bytes
    with storage.open_file(part.path) as raw:
        if is_compressed(part.path):
            begin, end = 0, part.stop
            stream = decompress(raw, part.path)
        else:
            begin, end = (_boundary(raw, place, by_document) for place in (part.start, part.stop))
            stream = _stored_blocks(raw, begin, end)
        origin = Origin(part.path, begin)
        number = 1
        for data in _whole_lines(_universal_newlines(stream), longest):
            if number == 1 and not begin:
                data = data.removeprefix(b"\xef\xbb\xbf")
            yield from _decode(data, number, origin, options, tally)
            number += data.count(b"\n")
            share = (raw.tell() - begin) / max(end - begin, 1)
            tally.num_bytes = consumed_before + int(share * (part.stop - part.start))


def _decode(
    data: bytes, number: int, origin: Origin, options: ReadOptions, tally: ReadTally
) -> Iterator[Line]:
    for here, line in enumerate(data.splitlines(keepends=True), start=number):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as invalid:
            place = functools.partial(origin.line, here, byte=invalid.start + 1)
            try:
                text = decode_at(place, line, options, tally)
            except BadRecord as error:
                tally.num_records += 1
                tally.skip(error, options)
                continue
        yield Line(text, here, origin)


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
    raw.seek(begin)
    while block := raw.read(min(BLOCK_BYTES, end - raw.tell())):
        yield block


def decompress(raw: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield blocks of a compressed file's content."""
    try:
        if path.lower().endswith(".zst"):
            yield from _decompress_zstd(raw)
            return
        opener: Callable[[BinaryIO], Any] = gzip.open if path.lower().endswith(".gz") else lzma.open
        with contextlib.closing(opener(raw)) as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
    except EOFError as error:
        raise UserError(f"{path}: the compressed data end too early. Fetch or compress it again.") from error
    except (lzma.LZMAError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(f"{path}: corrupt compressed data ({error}). Fetch or compress it again.") from error


def _decompress_zstd(raw: BinaryIO) -> Iterator[bytes]:
    """Yield the content of all frames; unlike the library's reader, notice one that is cut short."""
    frame = None
    while data := raw.read(ZSTD_INPUT_BYTES):
        while data:
            frame = frame or zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj()
            if block := frame.decompress(data):
                yield block
            data = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError


def _universal_newlines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""  # carriage returns whose line feed may be in the next block
    for block in blocks:
        data = held + block
        whole = data.rstrip(b"\r")
        held = data[len(whole) :]
        yield _LINE_ENDS.sub(b"\n", whole) if b"\r" in whole else whole
    yield held.replace(b"\r", b"\n")


def _whole_lines(blocks: Iterator[bytes], longest: int) -> Iterator[bytes]:
    r"""Regroup blocks so that each ends with "\n"; a line of more than `longest` bytes is cut."""
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
