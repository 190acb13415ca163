"""Turn text into prepared rows: unit by unit, in parallel, resumable, the same bytes every time.

Nothing depends on the order of work or the number of workers, so to resume is to skip finished units.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import eelbert_jax
from eelbert_jax.corpus import ledger, storage
from eelbert_jax.corpus.documents import ReadTally, Unit
from eelbert_jax.corpus.rows import FORMAT_VERSION, SPLITS, id_dtype
from eelbert_jax.corpus.units import Settings, UnitTask, text_sha256, write_error
from eelbert_jax.corpus.workers import run_tasks, usable_cores
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import (
    Vocabulary,
    check_unknown,
    load_vocabulary,
    parse_vocabulary,
    train_vocabulary,
)
from eelbert_jax.workdir import MANIFEST_NAME, VOCABULARY_NAME, claim, locked

SAMPLE_UNITS, SAMPLE_CHARACTERS = 16, 1 << 16
"""Looked at before the work begins: so much of the beginnings of so many units."""
COUNTS = ("num_documents", "num_tokens", "num_unknown", "num_dropped")

Report = Callable[[int, int, int], None]
"""Takes the bytes of the input, those finished by earlier runs, and those consumed by this one."""
Engine = Callable[[UnitTask, Sequence[int]], None]
"""Does a task for some units, in any order and anywhere, and returns when all are done."""
Say = Callable[[str], None]
"""Takes a line for the user."""


def choose_vocabulary(
    path: str,
    units: Sequence[Unit],
    settings: Settings,
    directory: str,
    max_training_bytes: int,
    say: Say,
) -> Vocabulary:
    """Return the vocabulary of a path or URL, or of the interrupted run, or one trained on the source."""
    if path:
        return _read_vocabulary(storage.canonical(path))
    if ledger.is_begun(directory):
        return _read_vocabulary(f"{directory}/{VOCABULARY_NAME}")
    if not storage.is_url(directory):
        claim(Path(directory), "prepare")
    say(f"Training a vocabulary of {settings.trained_vocabulary_size} tokens on the source.")
    texts = _training_texts(units, settings, max_training_bytes)
    return train_vocabulary(texts, settings.trained_vocabulary_size, lowercase=settings.lowercase)


def _read_vocabulary(path: str) -> Vocabulary:
    if not storage.is_url(path):
        return load_vocabulary(path)
    try:
        return parse_vocabulary(storage.read_bytes(path), path)
    except OSError as error:
        raise UserError(f"Cannot read the vocabulary {path}: {error.strerror or error}.") from error


def _training_texts(units: Sequence[Unit], settings: Settings, max_bytes: int) -> Iterator[str]:
    held_out, total = False, 0
    for chunk in itertools.chain.from_iterable(unit.read(settings.read, ReadTally()) for unit in units):
        if chunk.starts_document:
            held_out = settings.is_held_out(chunk.text)
        if not held_out:
            yield chunk.text
            total += len(chunk.text.encode())
        if total >= max_bytes:
            return


def prepare(
    units: Sequence[Unit],
    settings: Settings,
    vocabulary: Vocabulary,
    source: str,
    directory: str,
    engine: Engine,
    max_unknown_percent: float,
    say: Say,
) -> dict[str, Any]:
    """Prepare every unit that is not finished yet, then write the manifest and return it.

    Args:
      source: what to record as the origin of the text.
      directory: path or URL of an empty folder, or of one of the same preparation, which is continued.
      max_unknown_percent: largest share of [UNK] of a given vocabulary.

    Raises:
      UserError: bad input, a directory that cannot be used, text that gives no row. Finished units stay.
    """
    limit = 100.0 if settings.trained_vocabulary_size else max_unknown_percent
    try:
        with _own(directory):
            if not ledger.is_begun(directory):
                storage.write_bytes(f"{directory}/{VOCABULARY_NAME}", vocabulary.text.encode())
            is_done = not ledger.missing_units(directory, len(units))
            ledger.check_plan(directory, _plan(units, settings, vocabulary, source), is_done)
            _forget_changed_units(directory, units, settings, say)
            if missing := ledger.missing_units(directory, len(units)):
                task = UnitTask(units, settings, vocabulary, directory)
                _check_sample(task, missing, limit, say)
                engine(task, missing)
            records = ledger.read_records(directory, range(len(units)))
            manifest = _manifest(list(records.values()), settings, vocabulary, source)
            _check_whole(manifest, settings, limit)
            ledger.write_json(f"{directory}/{MANIFEST_NAME}", manifest)
            return manifest
    except OSError as error:
        raise write_error(directory, error) from error


def choose_engine(name: str, workers: int, beam_args: str, report: Report) -> Engine:
    """Return what works on the units: "local", where 0 workers are one a core, or "beam"."""
    if workers < 0:
        raise UserError(f"workers must be 0 (one a core) or more, got {workers}.")
    if name == "local":
        return functools.partial(run_here, workers=workers or usable_cores(), report=report)
    if name != "beam":
        raise UserError(f"engine={name!r} is not one of local, beam.")
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "engine=beam needs Apache Beam, which is not installed. Install the extra in an environment of "
            "its own, `pip install 'eelbert_jax[beam]'`: Beam wants older versions of protobuf and pyarrow "
            "than the rest. Or leave --config.engine=local."
        )
    from eelbert_jax.corpus import beam

    return functools.partial(beam.run_pipeline, args=shlex.split(beam_args))


def run_here(task: UnitTask, numbers: Sequence[int], workers: int, report: Report) -> None:
    """Do the task for some units on this machine; 1 worker is this process."""
    total = sum(unit.num_bytes for unit in task.units)
    before = total - sum(task.units[n].num_bytes for n in numbers)
    report(total, before, 0)
    run_tasks(task, numbers, min(workers, len(numbers)), lambda done: report(total, before, done))


@contextlib.contextmanager
def _own(directory: str) -> Iterator[None]:
    """Make a folder here ready and keep a second process out until this one ends.

    A store has no locks; the same command twice does no harm there: equal plans give equal bytes.
    """
    if storage.is_url(directory):
        yield
        return
    folder = Path(directory)
    with locked(folder, "prepare"):
        for name in (*SPLITS, ledger.UNIT_FOLDER):
            (folder / name).mkdir(exist_ok=True)
        for temporary in folder.rglob("*.tmp"):
            temporary.unlink()  # left by a killed run; the lock keeps this from being a live one's here
        yield


def _plan(units: Sequence[Unit], settings: Settings, vocabulary: Vocabulary, source: str) -> dict[str, Any]:
    """Return, flat, everything that the bytes of the shards depend on."""
    plan = {
        "format_version": FORMAT_VERSION,
        "tokenizers": importlib.metadata.version("tokenizers"),
        "source": source,
        "held_out_by": "canonical text",
    }
    plan |= {key: value for key, value in dataclasses.asdict(settings).items() if key != "read"}
    plan |= {f"read.{key}": value for key, value in dataclasses.asdict(settings.read).items()}
    del plan["read.on_bad_record"]  # to skip or to stop: what a finished unit holds is the same
    plan |= {"vocabulary": vocabulary.fingerprint}
    return plan | {f"unit {number}": unit.describe() for number, unit in enumerate(units)}


def _forget_changed_units(directory: str, units: Sequence[Unit], settings: Settings, say: Say) -> None:
    """Let units be prepared again whose text was edited: known by a file's time or checksum."""
    missing = set(ledger.missing_units(directory, len(units)))
    records = ledger.read_records(directory, (n for n in range(len(units)) if n not in missing))
    changed: dict[int, str] = {}
    for number, record in records.items():
        known, versions = record.get("input"), units[number].versions  # older records know no input
        if known is None or known["versions"] == versions:
            continue
        if text_sha256(units[number], settings.read) == known["sha256"]:
            known["versions"] = versions
            ledger.write_record(directory, number, record)
        else:
            changed[number] = next(path for path in versions if versions[path] != known["versions"].get(path))
    if not changed:
        return
    say(
        f"The text of {len(changed)} of {len(units)} units has changed; they are prepared again. The first: "
        f"{changed[min(changed)]}"
    )
    storage.remove(f"{directory}/{MANIFEST_NAME}")
    for number in changed:
        ledger.forget_unit(directory, number, records[number])


def _check_sample(task: UnitTask, numbers: Sequence[int], max_unknown_percent: float, say: Say) -> None:
    """Look at some text before hours of work: say the share of [UNK], and refuse what does not fit."""
    total, num_tokens, num_unknown = ReadTally(), 0, 0
    for number in numbers[:: -(-len(numbers) // SAMPLE_UNITS)]:
        unit, tally, num_characters = task.units[number], ReadTally(), 0
        with contextlib.suppress(UserError, OSError):  # to be said when the unit is prepared
            for chunk in unit.read(task.settings.read, tally):
                ids = task.encoder.encode(chunk.text)
                num_tokens += len(ids)
                num_unknown += int(np.count_nonzero(ids == task.vocabulary.unk_id))
                num_characters += len(chunk.text)
                if num_characters >= SAMPLE_CHARACTERS:
                    break
        total.num_records += tally.num_records
        total.num_bad += tally.num_bad
        total.first_bad = total.first_bad or tally.first_bad
    _check_bad(dataclasses.asdict(total))
    if num_tokens:
        say(f"{num_unknown / num_tokens:.2%} of the first {num_tokens} tokens looked at are [UNK].")
    check_unknown(num_unknown, num_tokens, max_unknown_percent, task.settings.lowercase)


def _check_bad(counts: Mapping[str, Any]) -> None:
    if 2 * counts["num_bad"] > counts["num_records"]:
        raise UserError(
            f"{counts['num_bad']} of {counts['num_records']} records are bad, the first: "
            f"{counts['first_bad']}"
        )


def _check_whole(manifest: Mapping[str, Any], settings: Settings, max_unknown_percent: float) -> None:
    _check_bad(manifest)
    if manifest["num_bad"] and settings.read.on_bad_record == "refuse":
        raise UserError(f"{manifest['num_bad']} bad records were skipped, the first: {manifest['first_bad']}")
    splits = manifest["splits"].values()
    num_tokens = sum(split["num_tokens"] for split in splits)
    if not any(split["num_rows"] for split in splits):
        raise UserError(
            f"The text has {num_tokens} tokens, not enough for one row of {settings.row_length}. Give more "
            "text or set a smaller --config.row_length."
        )
    num_unknown = sum(split["num_unknown"] for split in splits)
    check_unknown(num_unknown, num_tokens, max_unknown_percent, settings.lowercase)


def _manifest(
    records: Sequence[dict[str, Any]], settings: Settings, vocabulary: Vocabulary, source: str
) -> dict[str, Any]:
    """Merge the units' records; no time or machine is in it, so that equal input gives equal bytes."""
    splits = {}
    for split in SPLITS:
        parts = [record["splits"][split] for record in records]
        shards = [part["shard"] for part in parts if part["shard"]]
        splits[split] = {
            "num_rows": sum(shard["num_rows"] for shard in shards),
            **{name: sum(part[name] for part in parts) for name in COUNTS},
            "shards": shards,
        }
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
        **{
            name: sum(record.get(name, 0) for record in records)
            for name in ("num_replaced", "num_records", "num_bad")
        },
        "first_bad": next((record["first_bad"] for record in records if record.get("first_bad")), ""),
        "versions": {
            "eelbert_jax": eelbert_jax.__version__,
            "tokenizers": importlib.metadata.version("tokenizers"),
        },
        "splits": splits,
    }
