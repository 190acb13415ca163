"""What every text source yields: documents of any length as bounded chunks, and which are held out."""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from eelbert_jax.errors import UserError

CHUNK_CHARACTERS = 4096
"""A chunk ends at the first paragraph's end after so many characters; so many decide what is held out."""
MAX_PARAGRAPH_CHARACTERS = 1 << 18
"""A longer paragraph of a record is cut, at a space where there is one, which changes no token."""
LINE_ENDS = re.compile("\r+\n|\r")
"""What is read as a line feed: the line ends of Windows, also damaged ones, and of the old Mac."""
INVALID_UTF8_POLICIES = ("error", "replace")
BAD_RECORD_POLICIES = ("skip", "refuse")


Place = Callable[[], str]
"""Makes the words that lead a user to a record; it may have to count lines."""


class BadRecord(Exception):
    """A record that cannot be used, in an input that can be read on."""

    def __init__(self, place: Place, reason: str):
        super().__init__(reason)
        self.place = place


class Chunk(NamedTuple):
    """A part of a document, cut between paragraphs, or at white space inside a very long one."""

    text: str
    starts_document: bool


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Say how text is found in a source: the knobs of these names in `configs/prepare.py`."""

    text_field: str = ""
    file_format: str = "auto"
    on_invalid_utf8: str = "error"
    on_bad_record: str = "skip"

    def __post_init__(self) -> None:
        policies = {"on_invalid_utf8": INVALID_UTF8_POLICIES, "on_bad_record": BAD_RECORD_POLICIES}
        for name, legal in policies.items():
            if getattr(self, name) not in legal:
                raise UserError(f"{name}={getattr(self, name)!r} is not one of {', '.join(legal)}.")


@dataclasses.dataclass
class ReadTally:
    """Count what the reader of one unit has consumed.

    Attributes:
      num_bytes: of input, as they are on the disk, towards `Unit.num_bytes`.
      num_replaced: invalid UTF-8 sequences replaced.
      num_records: the bad ones included.
    """

    num_bytes: int = 0
    num_replaced: int = 0
    num_records: int = 0
    num_bad: int = 0
    first_bad: str = ""

    def skip(self, error: BadRecord, options: ReadOptions) -> None:
        """Count a bad record, or raise it as a `UserError` where such are to be refused."""
        if options.on_bad_record == "refuse":
            raise UserError(
                f"{error.place()}: {error} Or skip such records by --config.on_bad_record=skip."
            ) from error
        self.num_bad += 1
        if not self.first_bad:
            self.first_bad = f"{error.place()}: {error}".encode("utf-8", "backslashreplace").decode()


class Unit(Protocol):
    """A part of the input whose rows depend on nothing else: the unit of parallel work and of resuming."""

    @property
    def num_bytes(self) -> int:
        """Size of the input in bytes, for progress."""

    @property
    def versions(self) -> dict[str, str]:
        """What changes with the content of a file, by its name."""

    def describe(self) -> dict[str, Any]:
        """Return what identifies the input, as JSON values."""

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the chunks of every document in order."""


def decode_at(place: Place, data: bytes, options: ReadOptions, tally: ReadTally) -> str:
    """Decode UTF-8; what is invalid is a `BadRecord`, or replaced and counted."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if options.on_invalid_utf8 == "error":
            raise BadRecord(
                place,
                f"invalid UTF-8, byte 0x{data[error.start]:02x} ({error.reason}). "
                "Convert the text to UTF-8 (for example with iconv), or drop such bytes with "
                "--config.on_invalid_utf8=replace.",
            ) from error
        text = data.decode("utf-8", errors="replace")
        tally.num_replaced += text.count("\ufffd") - data.count("\ufffd".encode())
        return text


def canonical(text: str) -> str:
    r"""Return a text with "\n" as its line ends and no blanks before them, in Unicode's form NFC."""
    lines = LINE_ENDS.sub("\n", text).split("\n")
    return unicodedata.normalize("NFC", "\n".join(line.rstrip() for line in lines))


def is_held_out(head: str, fraction: float, seed: int) -> bool:
    """Decide by the first chunk of a document whether it is held out.

    The text alone decides, so that equal documents never stand on both sides, however they are stored.
    """
    text = canonical(head)
    line_ended = text if text.endswith("\n") else text + "\n"  # the end of a file is as good as a line's
    data = line_ended[:CHUNK_CHARACTERS].encode("utf-8")
    digest = hashlib.blake2b(data, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def chunk_documents(lines: Iterable[str]) -> Iterator[Chunk]:
    r"""Cut paragraphs, one a line with its "\n", into chunks; a blank line ends a document."""
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
        # The first chunk of a document must hold as much whatever the form that the text is stored in.
        length += len(canonical(line) if starts else line)
        if length >= CHUNK_CHARACTERS:
            yield Chunk("".join(parts), starts)
            parts, length, starts = [], 0, False
    if parts:
        yield Chunk("".join(parts), starts)


def chunk_document(text: str) -> Iterator[Chunk]:
    """Cut one document that is held whole into chunks; its blank lines are no boundaries."""
    lines = LINE_ENDS.sub("\n", text).split("\n")
    paragraphs = (line + "\n" for line in lines if line and not line.isspace())
    return chunk_documents(piece for paragraph in paragraphs for piece in _pieces(paragraph))


def chunk_record(get_text: Callable[[], str], options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Yield the chunks of a record's text, none where it is bad and skipped."""
    tally.num_records += 1
    try:
        text = get_text()
    except BadRecord as error:
        tally.skip(error, options)
    else:
        yield from chunk_document(text)


def _pieces(paragraph: str) -> Iterator[str]:
    """Cut a paragraph that is too long to be encoded at once."""
    start = 0
    while len(paragraph) - start > MAX_PARAGRAPH_CHARACTERS:
        end = start + MAX_PARAGRAPH_CHARACTERS
        end = paragraph.rfind(" ", start, end) + 1 or end
        yield paragraph[start:end]
        start = end
    yield paragraph[start:]
