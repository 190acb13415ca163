"""Turn text into prepared rows: unit by unit, in parallel, resumable, the same bytes every time.

The shards of a unit are a pure function of the unit, the settings and the vocabulary: rows do not cross
units, and nothing depends on the run, the order of work or the number of workers. So resuming is skipping
finished units, and parallel work is units over processes (`run_here`) or over machines (`beam_pipeline`).
Leaves reading to `corpus`, what a row is to `rows` and what lies beside the shards to `records`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

import eelbert_jax
from eelbert_jax.corpus import ledger, storage
from eelbert_jax.corpus.documents import ReadOptions, ReadTally, Unit
from eelbert_jax.corpus.rows import FORMAT_VERSION, SPLITS, RowPacker, id_dtype
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.corpus.workers import run_tasks
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary, save_vocabulary
from eelbert_jax.workdir import MANIFEST_NAME, VOCABULARY_NAME, locked

HEAD_CHARACTERS = 4096
"""What decides whether a document is held out; no more than the least first chunk of a longer document."""
FLUSH_TOKENS = 1 << 18
"""Tokens that gather before they are written as rows."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Say what rows to make; every field changes the bytes.

    Attributes:
      row_length: L, tokens a row with [CLS] and [SEP].
      lowercase: lower-case and strip accents, as uncased BERT.
      held_out_fraction: share of the documents held out for evaluation, in [0, 1).
      held_out_seed: picks which documents, in [0, 2**64).
      trained_vocabulary_size: tokens asked for where the vocabulary was trained on the source; 0 for a given
        one.
      read: how text is found in the source.

    Raises:
      UserError: a value is out of range.
    """

    row_length: int = 128
    lowercase: bool = True
    held_out_fraction: float = 0.005
    held_out_seed: int = 0
    trained_vocabulary_size: int = 0
    read: ReadOptions = dataclasses.field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.row_length < 3:
            raise UserError(f"row_length must be at least 3 ([CLS], a token, [SEP]), got {self.row_length}.")
        if not 0.0 <= self.held_out_fraction < 1.0:
            raise UserError(f"held_out_fraction must lie in [0, 1), got {self.held_out_fraction}.")
        if not 0 <= self.held_out_seed < 2**64:
            raise UserError(f"held_out_seed must lie in [0, 2**64), got {self.held_out_seed}.")


def is_held_out(head: str, fraction: float, seed: int) -> bool:
    """Decide by the first characters of a document whether it is held out.

    The text alone decides, so that equal documents never stand on both sides, and neither their place nor
    the number of workers matters. Only the first `HEAD_CHARACTERS` count, since a document is never held
    whole. A document that the input cuts in two files counts as two. Source: ours.
    """
    line_ended = head if head.endswith("\n") else head + "\n"  # the end of a file is as good as a line's
    data = line_ended[:HEAD_CHARACTERS].encode("utf-8")
    digest = hashlib.blake2b(data, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


class ShardWriter:
    """Write the rows of one split of one unit to a temporary file here, hashing on the way."""

    def __init__(self, path: str):
        """Start an empty shard that `finish` will put at `path`, which may be a URL."""
        self._path = path
        self._temporary = storage.temporary_for(path)
        self._file: BinaryIO = open(self._temporary, "wb")  # noqa: SIM115, closed by finish or discard
        self._digest = hashlib.sha256()
        self.num_rows = 0

    def write(self, rows: np.ndarray) -> None:
        """Append rows [n, L]."""
        data = rows.tobytes()
        self._file.write(data)
        self._digest.update(data)
        self.num_rows += len(rows)

    def finish(self) -> str:
        """Put the shard in its place, durably, and return its SHA-256."""
        self._file.close()
        storage.put(self._temporary, self._path)
        return self._digest.hexdigest()

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
      unit: the input.
      number: its place in the list of units; names the shards.
      settings: what rows to make.
      encoder: of the vocabulary and the case that `settings` says.
      directory: path or URL where the shards go, in a folder a split.
      advance: called with the input bytes consumed since the last call.

    Returns:
      For each split the shard (None where it has no row) and the counts, and the replaced bytes.

    Raises:
      UserError: the input is bad or a shard cannot be written; then no shard of the unit is left.
    """
    writers: dict[str, ShardWriter] = {}
    try:
        for split in SPLITS:
            writers[split] = ShardWriter(f"{directory}/{split}/{number:06d}.bin")
        packers = {split: RowPacker(settings.row_length, encoder.vocabulary) for split in SPLITS}
        num_unknown = dict.fromkeys(SPLITS, 0)
        tally = ReadTally()
        done = 0
        for split, starts, ids in _tokens(unit, settings, encoder, tally):
            if starts:
                packers[split].start_document()
            packers[split].add(ids)
            num_unknown[split] += int(np.count_nonzero(ids == encoder.vocabulary.unk_id))
            if packers[split].num_pending > FLUSH_TOKENS:
                writers[split].write(packers[split].take_rows())
            if tally.num_bytes > done:
                advance(tally.num_bytes - done)
                done = tally.num_bytes
        record: dict[str, Any] = {"num_replaced": tally.num_replaced, "splits": {}}
        for split, packer in packers.items():
            writers[split].write(packer.take_rows())
            record["splits"][split] = {
                "shard": _finish(writers[split], f"{split}/{number:06d}.bin"),
                "num_documents": packer.num_documents,
                "num_tokens": packer.num_tokens,
                "num_unknown": num_unknown[split],
                "num_dropped": packer.num_pending,
            }
        return record
    except OSError as error:
        raise _write_error(directory, error) from error
    finally:
        for writer in writers.values():
            writer.discard()


def _tokens(
    unit: Unit, settings: Settings, encoder: WordEncoder, tally: ReadTally
) -> Iterator[tuple[str, bool, np.ndarray]]:
    """Yield (split, whether a document starts, ids [n]) for each chunk of the unit.

    Raises:
      UserError: the input cannot be read.
    """
    split = SPLITS[0]
    try:
        for chunk in unit.read(settings.read, tally):
            if chunk.starts_document:
                held_out = is_held_out(chunk.text, settings.held_out_fraction, settings.held_out_seed)
                split = SPLITS[held_out]
            yield split, chunk.starts_document, encoder.encode(chunk.text)
    except OSError as error:
        raise UserError(f"Cannot read {error.filename or 'the input'}: {error.strerror or error}.") from error


def _finish(writer: ShardWriter, name: str) -> dict[str, Any] | None:
    if not writer.num_rows:
        return None  # an empty file cannot be memory-mapped
    return {"file": name, "num_rows": writer.num_rows, "sha256": writer.finish()}


def _write_error(directory: str, error: OSError) -> UserError:
    return UserError(
        f"Cannot write to {directory}: {error.strerror or error}. Make room or choose another --workdir; the "
        "same command again keeps all finished units."
    )


@dataclasses.dataclass(frozen=True)
class UnitTask:
    """Prepare a unit by number and record it: what an engine does for every missing unit; picklable.

    Attributes:
      units: all units of the input.
      settings: what rows to make.
      vocabulary: of the ids.
      directory: path or URL of the prepared rows.
    """

    units: Sequence[Unit]
    settings: Settings
    vocabulary: Vocabulary
    directory: str

    @functools.cached_property
    def _encoder(self) -> WordEncoder:
        return WordEncoder(self.vocabulary, self.settings.lowercase)

    def __call__(self, item: int, advance: Callable[[int], None]) -> None:
        """Write the shards, then the record that vouches for them.

        Raises:
          UserError: see `prepare_unit`.
        """
        record = prepare_unit(self.units[item], item, self.settings, self._encoder, self.directory, advance)
        try:
            ledger.write_record(self.directory, item, record)
        except OSError as error:
            raise _write_error(self.directory, error) from error


Report = Callable[[int, int], None]
"""Takes the input bytes finished by earlier runs, and those consumed by this one."""
Engine = Callable[[UnitTask, Sequence[int]], None]
"""Does a task for some units, in any order and anywhere, and returns when all are done."""


def prepare(
    units: Sequence[Unit],
    settings: Settings,
    vocabulary: Vocabulary,
    source: str,
    directory: str,
    engine: Engine,
) -> dict[str, Any]:
    """Prepare every unit that is not finished yet, then write the manifest and return it.

    Args:
      units: the input, from `corpus.find_units`.
      settings: what rows to make.
      vocabulary: of the ids; copied into the directory.
      source: what to record as the origin of the text.
      directory: path or URL of a new or empty folder, or of one of the same preparation, which is continued.
      engine: does the work; changes no byte.

    Raises:
      UserError: bad input, an unusable directory, a directory of another preparation or in use by another
        process, or text for not even one row. Finished units stay.
    """
    try:
        with _own(directory):
            if not ledger.is_begun(directory):
                _write_vocabulary(vocabulary, f"{directory}/{VOCABULARY_NAME}")
            ledger.check_plan(directory, _plan(units, settings, vocabulary, source))
            if missing := ledger.missing_units(directory, len(units)):
                engine(UnitTask(units, settings, vocabulary, directory), missing)
            manifest = _manifest(ledger.read_records(directory, len(units)), settings, vocabulary, source)
            ledger.write_json(f"{directory}/{MANIFEST_NAME}", manifest)
            return manifest
    except OSError as error:
        raise _write_error(directory, error) from error


def run_here(task: UnitTask, numbers: Sequence[int], workers: int, report: Report) -> None:
    """Do the task for some units on this machine: the local engine.

    Args:
      task: what to do.
      numbers: the units.
      workers: processes; 1 works in this process.
      report: called now and then.

    Raises:
      UserError: see `prepare_unit`, or a worker was killed.
    """
    before = sum(unit.num_bytes for unit in task.units) - sum(task.units[n].num_bytes for n in numbers)
    report(before, 0)
    run_tasks(task, numbers, min(workers, len(numbers)), lambda done: report(before, done))


@contextlib.contextmanager
def _own(directory: str) -> Iterator[None]:
    """Make a folder of this machine ready and keep a second process out until this one ends, however it ends.

    A store has no locks and needs no folders. The same command twice at once does no harm there but double
    work, since equal plans give equal bytes.

    Raises:
      UserError: the folder cannot be made or written, or another process works there.
    """
    if storage.is_url(directory):
        yield
        return
    folder = Path(directory)
    with locked(folder):
        for name in (*SPLITS, ledger.UNIT_FOLDER):
            (folder / name).mkdir(exist_ok=True)
        for temporary in folder.rglob("*.tmp"):
            temporary.unlink()  # left by a killed run; the lock keeps this from being a live one's here
        yield


def _write_vocabulary(vocabulary: Vocabulary, path: str) -> None:
    temporary = storage.temporary_for(path)
    try:
        save_vocabulary(vocabulary, temporary)
        storage.put(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plan(units: Sequence[Unit], settings: Settings, vocabulary: Vocabulary, source: str) -> dict[str, Any]:
    """Return, flat, everything that the bytes of the shards depend on."""
    plan = {
        "format_version": FORMAT_VERSION,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "source": source,
    }
    plan |= {key: value for key, value in dataclasses.asdict(settings).items() if key != "read"}
    plan |= {f"read.{key}": value for key, value in dataclasses.asdict(settings.read).items()}
    plan |= {"vocabulary": vocabulary.fingerprint}
    return plan | {f"unit {number}": unit.describe() for number, unit in enumerate(units)}


def _manifest(
    unit_records: Sequence[dict[str, Any]], settings: Settings, vocabulary: Vocabulary, source: str
) -> dict[str, Any]:
    """Merge the units' records; no time or machine is in it, so that equal input gives equal bytes.

    Raises:
      UserError: there is no row at all.
    """
    splits = {}
    for split in SPLITS:
        parts = [record["splits"][split] for record in unit_records]
        shards = [part["shard"] for part in parts if part["shard"]]
        counts = ("num_documents", "num_tokens", "num_unknown", "num_dropped")
        splits[split] = {
            "num_rows": sum(shard["num_rows"] for shard in shards),
            **{name: sum(part[name] for part in parts) for name in counts},
            "shards": shards,
        }
    if not any(split["num_rows"] for split in splits.values()):
        raise UserError(
            f"The text has {sum(split['num_tokens'] for split in splits.values())} tokens, not enough for "
            f"one row of {settings.row_length}. Give more text or set a smaller --config.row_length."
        )
    return {
        "format_version": FORMAT_VERSION,
        "row_length": settings.row_length,
        "dtype": id_dtype(vocabulary.size).str,
        "source": source,
        "settings": dataclasses.asdict(settings),
        "vocabulary": {
            "file": VOCABULARY_NAME,
            "size": vocabulary.size,
            "fingerprint": vocabulary.fingerprint,
        },
        "num_replaced": sum(record["num_replaced"] for record in unit_records),
        "versions": {
            "eelbert_jax": eelbert_jax.__version__,
            "tokenizers": importlib.metadata.version("tokenizers"),
        },
        "splits": splits,
    }
