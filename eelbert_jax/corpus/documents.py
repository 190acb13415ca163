"""What every text source yields: documents as a stream of bounded chunks.

A document of any length must pass through bounded memory, so no function here or downstream holds one whole:
a document is a run of `Chunk`s, of which the first says that it starts one. Leaves where the text comes from
to `corpus`, `files` and `docstrings`, and tokens to `preparation`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from eelbert_jax.errors import UserError

CHUNK_CHARACTERS = 4096
"""A chunk is cut at the first end of a paragraph after this many characters: long enough that the cost of a
call a chunk vanishes."""
MAX_PARAGRAPH_CHARACTERS = 1 << 18
"""A longer paragraph of a record is cut, at a space where there is one, which changes no token."""

INVALID_UTF8_POLICIES = ("error", "replace")


class Chunk(NamedTuple):
    """A part of a document, cut between paragraphs, or at white space inside a very long one."""

    text: str
    starts_document: bool


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Say how text is found in a source.

    Attributes:
      text_field: name of the field of a jsonl line, parquet column or TFDS feature that holds the text; "" is
        `text`, and for TFDS the only text feature where none is called so.
      file_format: one of `files.FILE_FORMATS`; "auto" goes by the file's name.
      on_invalid_utf8: one of `INVALID_UTF8_POLICIES`.

    Raises:
      UserError: a value is not legal.
    """

    text_field: str = ""
    file_format: str = "auto"
    on_invalid_utf8: str = "error"

    def __post_init__(self) -> None:
        """Check the policy."""
        if self.on_invalid_utf8 not in INVALID_UTF8_POLICIES:
            raise UserError(
                f"on_invalid_utf8={self.on_invalid_utf8!r} is not one of {', '.join(INVALID_UTF8_POLICIES)}."
            )


@dataclasses.dataclass
class ReadTally:
    """Count what the reader of one unit has consumed; the reader adds, the caller looks.

    Attributes:
      num_bytes: input bytes consumed so far (compressed, where they are), towards `Unit.num_bytes`.
      num_replaced: invalid UTF-8 sequences replaced so far.
    """

    num_bytes: int = 0
    num_replaced: int = 0


class Unit(Protocol):
    """A part of the input whose rows depend on nothing else: the unit of parallel work and of resuming."""

    @property
    def num_bytes(self) -> int:
        """Size of the input in bytes, for progress."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the input, as JSON values; another description is another input."""

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the chunks of every document in order."""


def decode_utf8(
    data: bytes, place: str | Callable[[int], str], options: ReadOptions, tally: ReadTally
) -> str:
    """Decode UTF-8 by the policy of `options`, counting what is replaced.

    Args:
      data: the bytes.
      place: the words that lead a user to the data, or a function that makes them from the index of the
        invalid byte.
      options: has the policy.
      tally: counts the replaced sequences.

    Raises:
      UserError: the bytes are invalid and the policy is "error".
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if options.on_invalid_utf8 == "error":
            where = place if isinstance(place, str) else place(error.start)
            raise UserError(
                f"{where}: invalid UTF-8, byte 0x{data[error.start]:02x} ({error.reason}). "
                "Convert the text to UTF-8 (for example with iconv), or drop such bytes with "
                "--config.on_invalid_utf8=replace."
            ) from error
        text = data.decode("utf-8", errors="replace")
        tally.num_replaced += text.count("\ufffd") - data.count("\ufffd".encode())
        return text


def chunk_documents(lines: Iterable[str]) -> Iterator[Chunk]:
    r"""Cut paragraphs into chunks.

    Args:
      lines: paragraphs, one a line, each with its "\n" where it is complete; a blank line ends a document.

    Yields:
      Chunks of at least `CHUNK_CHARACTERS` characters, but for the last of a document.
    """
    parts: list[str] = []
    length = 0
    starts = True
    for line in lines:
        if line.isspace():
            if parts:
                yield Chunk("".join(parts), starts)
            parts, length, starts = [], 0, True
            continue
        parts.append(line)
        length += len(line)
        if length >= CHUNK_CHARACTERS:
            yield Chunk("".join(parts), starts)
            parts, length, starts = [], 0, False
    if parts:
        yield Chunk("".join(parts), starts)


def chunk_document(text: str) -> Iterator[Chunk]:
    """Cut one document that is held whole into chunks; its blank lines are no boundaries."""
    lines = (line + "\n" for line in text.split("\n") if line and not line.isspace())
    return chunk_documents(piece for line in lines for piece in _pieces(line))


def _pieces(line: str) -> Iterator[str]:
    """Cut a paragraph that is too long to be encoded at once."""
    start = 0
    while len(line) - start > MAX_PARAGRAPH_CHARACTERS:
        end = start + MAX_PARAGRAPH_CHARACTERS
        end = line.rfind(" ", start, end) + 1 or end
        yield line[start:end]
        start = end
    yield line[start:]
