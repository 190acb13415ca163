"""One unit of text to its shards: a pure function of the unit, the settings and the vocabulary."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from eelbert_jax.corpus import ledger, storage
from eelbert_jax.corpus.documents import Chunk, ReadOptions, ReadTally, Unit, is_held_out
from eelbert_jax.corpus.rows import SPLITS, RowPacker
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary

FLUSH_TOKENS = 1 << 18
"""Tokens that gather before they are written as rows."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Say what rows to make.

    Attributes:
      row_length: L, tokens a row with [CLS] and [SEP].
      lowercase: lower-case and strip accents, as uncased BERT.
      held_out_fraction: share of the documents, in [0, 1).
      held_out_seed: picks which documents, in [0, 2**64).
      trained_vocabulary_size: tokens of a vocabulary trained on the source; 0 for a given one.
    """

    row_length: int = 128
    lowercase: bool = True
    held_out_fraction: float = 0.005
    held_out_seed: int = 0
    trained_vocabulary_size: int = 0
    read: ReadOptions = dataclasses.field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if self.row_length < 3:
            raise UserError(f"row_length must be at least 3 ([CLS], a token, [SEP]), got {self.row_length}.")
        if not 0.0 <= self.held_out_fraction < 1.0:
            raise UserError(f"held_out_fraction must lie in [0, 1), got {self.held_out_fraction}.")
        if not 0 <= self.held_out_seed < 2**64:
            raise UserError(f"held_out_seed must lie in [0, 2**64), got {self.held_out_seed}.")

    def is_held_out(self, head: str) -> bool:
        """Return whether the document that begins with a chunk is held out."""
        return is_held_out(head, self.held_out_fraction, self.held_out_seed)


class SplitWriter:
    """Write the rows of one split of one unit to a temporary file here, hashing on the way."""

    def __init__(self, directory: str, name: str, row_length: int, vocabulary: Vocabulary):
        self._path, self._name = f"{directory}/{name}", name
        self._unk_id = vocabulary.unk_id
        self._packer = RowPacker(row_length, vocabulary)
        self._temporary = storage.temporary_for(self._path)
        self._file = open(self._temporary, "wb")  # noqa: SIM115, closed by finish or discard
        self._digest = hashlib.sha256()
        self._num_rows = self._num_unknown = 0

    def add(self, ids: np.ndarray, starts_document: bool) -> None:
        """Append ids [n] of a document."""
        if starts_document:
            self._packer.start_document()
        self._packer.add(ids)
        self._num_unknown += int(np.count_nonzero(ids == self._unk_id))
        if self._packer.num_pending > FLUSH_TOKENS:
            self._flush()

    def _flush(self) -> None:
        rows = self._packer.take_rows()
        data = rows.tobytes()
        self._file.write(data)
        self._digest.update(data)
        self._num_rows += len(rows)

    def finish(self) -> dict[str, Any]:
        """Put the shard in its place, durably, and return the record of it."""
        self._flush()
        self._file.close()
        shard = None  # an empty file cannot be memory-mapped
        if self._num_rows:
            storage.put(self._temporary, self._path)
            shard = {"file": self._name, "num_rows": self._num_rows, "sha256": self._digest.hexdigest()}
        return {
            "shard": shard,
            "num_documents": self._packer.num_documents,
            "num_tokens": self._packer.num_tokens,
            "num_unknown": self._num_unknown,
            "num_dropped": self._packer.num_pending,
        }

    def discard(self) -> None:
        """Remove the temporary file if `finish` did not take it away."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def prepare_unit(
    unit: Unit,
    number: int,
    settings: Settings,
    encoder: WordEncoder,
    directory: str,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write the shards of one unit and return the record of them.

    Args:
      directory: path or URL where the shards go, in a folder a split.
      advance: called with the input bytes consumed since the last call.

    Raises:
      UserError: the input is bad or a shard cannot be written; then no shard of the unit is left.
    """
    writers: dict[str, SplitWriter] = {}
    try:
        for split in SPLITS:
            name = f"{split}/{number:06d}.bin"
            writers[split] = SplitWriter(directory, name, settings.row_length, encoder.vocabulary)
        tally, digest = ReadTally(), hashlib.sha256()
        split, done = SPLITS[0], 0
        for chunk in _chunks(unit, settings.read, tally):
            if chunk.starts_document:
                split = SPLITS[settings.is_held_out(chunk.text)]
            _digest_chunk(digest, chunk)
            writers[split].add(encoder.encode(chunk.text), chunk.starts_document)
            if tally.num_bytes > done:
                advance(tally.num_bytes - done)
                done = tally.num_bytes
        return {
            "num_replaced": tally.num_replaced,
            "num_records": tally.num_records,
            "num_bad": tally.num_bad,
            "first_bad": tally.first_bad,
            "input": {"versions": unit.versions, "sha256": digest.hexdigest()},
            "splits": {split: writer.finish() for split, writer in writers.items()},
        }
    except OSError as error:
        raise write_error(directory, error) from error
    finally:
        for writer in writers.values():
            writer.discard()


def text_sha256(unit: Unit, options: ReadOptions) -> str:
    """Read a unit and return what identifies its text, as `prepare_unit` records it."""
    digest = hashlib.sha256()
    for chunk in _chunks(unit, options, ReadTally()):
        _digest_chunk(digest, chunk)
    return digest.hexdigest()


def _digest_chunk(digest: Any, chunk: Chunk) -> None:
    if chunk.starts_document:
        digest.update(b"\xff")  # in no UTF-8
    digest.update(chunk.text.encode("utf-8"))


def _chunks(unit: Unit, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
    """Read a unit; what cannot be read is no failure to write."""
    try:
        yield from unit.read(options, tally)
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or 'the input'}: {error.strerror or error}.") from error


def write_error(directory: str, error: OSError) -> UserError:
    """Return what to say of a folder or store that cannot be written."""
    return UserError(
        f"Cannot write to {directory}: {error.strerror or error}. Make room or choose another --workdir; the "
        "same command again keeps all finished units."
    )


@dataclasses.dataclass(frozen=True)
class UnitTask:
    """Prepare a unit by number and record it: what an engine does for every missing unit; picklable."""

    units: Sequence[Unit]
    settings: Settings
    vocabulary: Vocabulary
    directory: str

    @functools.cached_property
    def encoder(self) -> WordEncoder:
        """The encoder that all units of a process share."""
        return WordEncoder(self.vocabulary, self.settings.lowercase)

    def __call__(self, item: int, advance: Callable[[int], None]) -> None:
        """Write the shards, then the record that vouches for them."""
        record = prepare_unit(self.units[item], item, self.settings, self.encoder, self.directory, advance)
        ledger.write_record(self.directory, item, record)
