"""`eelbert prepare`: text to rows of token ids.

    eelbert prepare --config=configs/prepare.py --config.source=SOURCE --config.vocabulary=FILE --workdir=DIR

Reads the flags, picks the engine and shows the progress; the work is `eelbert_jax.corpus.prepare`'s. Does
not import jax, nor Apache Beam unless it is asked for.
"""

import functools
import importlib.util
import itertools
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.corpus import ledger, storage
from eelbert_jax.corpus.documents import ReadOptions, ReadTally, Unit
from eelbert_jax.corpus.prepare import Engine, Settings, is_held_out, prepare, run_here
from eelbert_jax.corpus.rows import SPLITS, Rows, read_manifest
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.corpus.workers import usable_cores
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary, train_vocabulary
from eelbert_jax.workdir import VOCABULARY_NAME, make_writable

MIB = 1 << 20
ENGINES = ("local", "beam")
TERMINAL_SECONDS, LOG_SECONDS = 0.5, 15.0


class ProgressLine:
    """Show the share of the input consumed, the speed and the time left.

    The time left is the rest of the input at the speed of this run; what earlier runs finished counts as
    done, not as speed.
    """

    def __init__(self, total_bytes: int, stream: TextIO):
        """Start the clock; one line is rewritten on a terminal, else lines are added now and then."""
        self._total = total_bytes
        self._stream = stream
        self._began = time.monotonic()
        self._shown = self._began
        self._interval = TERMINAL_SECONDS if stream.isatty() else LOG_SECONDS

    def __call__(self, before: int, now: int) -> None:
        """Take the bytes finished by earlier runs and those consumed by this one."""
        moment = time.monotonic()
        if moment - self._shown < self._interval or not now:
            return
        self._shown = moment
        speed = now / (moment - self._began)
        left = max(self._total - before - now, 0) / speed
        text = (
            f"{(before + now) / self._total:6.1%} of {self._total / MIB:.0f} MiB of input, "
            f"{speed / MIB:.2f} MiB/s, {left / 60:.1f} min left"
        )
        self._stream.write(f"\r{text}\033[K" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the terminal's cursor on a new line."""
        if self._stream.isatty():
            self._stream.write("\n")


def prepare_rows(config: ml_collections.ConfigDict, workdir: str | Path, stream: TextIO) -> dict[str, Any]:
    """Prepare the rows that `config` describes in `workdir` and return the manifest.

    Args:
      config: as `configs/prepare.py` has it.
      workdir: folder or URL, see `preparation.prepare`.
      stream: where the progress goes.

    Raises:
      UserError: see `preparation.prepare`; or a knob is not legal.
    """
    read = ReadOptions(config.text_field, config.file_format, config.on_invalid_utf8)
    options = SourceOptions(
        min_unit_bytes=round(config.unit_mib.min * MIB),
        max_unit_bytes=round(config.unit_mib.max * MIB),
        tfds_split=config.tfds.split,
        tfds_data_dir=config.tfds.data_dir,
        tfds_download=config.tfds.download,
        docs_bytes=round(config.docs.max_mib * MIB),
    )
    directory = storage.canonical(workdir).rstrip("/")
    _check_engine(config)
    units = find_units(config.source, options, read)
    settings = Settings(
        row_length=config.row_length,
        lowercase=config.lowercase,
        held_out_fraction=config.held_out.fraction,
        held_out_seed=config.held_out.seed,
        trained_vocabulary_size=0 if config.vocabulary else config.train_vocabulary.size,
        read=read,
    )
    vocabulary = _vocabulary(config, units, settings, directory, stream)
    progress = ProgressLine(sum(unit.num_bytes for unit in units), stream)
    try:
        return prepare(units, settings, vocabulary, config.source, directory, _engine(config, progress))
    finally:
        progress.close()


def _check_engine(config: ml_collections.ConfigDict) -> None:
    """Refuse an engine that is not there, before any work.

    Raises:
      UserError: see above, or the number of workers is not legal.
    """
    if config.workers < 0:
        raise UserError(f"workers must be 0 (one a core) or more, got {config.workers}.")
    if config.engine not in ENGINES:
        raise UserError(f"engine={config.engine!r} is not one of {', '.join(ENGINES)}.")
    if config.engine == "beam" and importlib.util.find_spec("apache_beam") is None:
        raise UserError(
            "engine=beam needs Apache Beam, which is not installed. Install the extra in an environment of "
            "its own, `pip install 'eelbert_jax[beam]'`: Beam wants older versions of protobuf and pyarrow "
            "than the rest. Or leave --config.engine=local."
        )


def _engine(config: ml_collections.ConfigDict, progress: ProgressLine) -> Engine:
    """Return what works on the units."""
    if config.engine == "beam":
        from eelbert_jax.corpus import beam as beam_pipeline

        return functools.partial(beam_pipeline.run_pipeline, args=shlex.split(config.beam.args))
    return functools.partial(run_here, workers=config.workers or usable_cores(), report=progress)


def _vocabulary(
    config: ml_collections.ConfigDict,
    units: Sequence[Unit],
    settings: Settings,
    directory: str,
    stream: TextIO,
) -> Vocabulary:
    """Return the vocabulary from the file, from the interrupted run, or trained on the source."""
    if config.vocabulary:
        return _load_vocabulary(storage.canonical(config.vocabulary))
    if _is_begun(directory):
        return _load_vocabulary(f"{directory}/{VOCABULARY_NAME}")
    if not storage.is_url(directory):
        make_writable(Path(directory))
    stream.write(f"Training a vocabulary of {config.train_vocabulary.size} tokens on the source.\n")
    stream.flush()
    texts = _training_texts(units, settings, round(config.train_vocabulary.max_mib * MIB))
    return train_vocabulary(texts, config.train_vocabulary.size, lowercase=config.lowercase)


def _is_begun(directory: str) -> bool:
    """Return whether an earlier run has begun in the directory.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return ledger.is_begun(directory)
    except OSError as error:
        raise UserError(f"Cannot read the workdir {directory}: {error.strerror or error}.") from error


def _load_vocabulary(path: str) -> Vocabulary:
    """Return the vocabulary at a path or URL.

    Raises:
      UserError: it cannot be read or is no vocabulary.
    """
    if not storage.is_url(path):
        return load_vocabulary(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, VOCABULARY_NAME)
        try:
            copy.write_bytes(storage.read_bytes(path))
        except OSError as error:
            raise UserError(f"Cannot read the vocabulary {path}: {error.strerror or error}.") from error
        return load_vocabulary(copy)


def _write_config(config: ml_collections.ConfigDict, directory: str) -> None:
    """Leave the config beside the rows."""
    if not storage.is_url(directory):
        cli.write_config(config, directory)
        return
    with tempfile.TemporaryDirectory() as folder:
        written = cli.write_config(config, folder)
        try:
            storage.write_bytes(f"{directory}/{written.name}", written.read_bytes())
        except OSError as error:
            raise UserError(f"Cannot write to the workdir {directory}: {error.strerror or error}.") from error


def _training_texts(units: Sequence[Unit], settings: Settings, max_bytes: int) -> Iterator[str]:
    """Yield the text that is not held out, from the beginning of the source up to a limit."""
    held_out, total = False, 0
    for chunk in itertools.chain.from_iterable(unit.read(settings.read, ReadTally()) for unit in units):
        if chunk.starts_document:
            held_out = is_held_out(chunk.text, settings.held_out_fraction, settings.held_out_seed)
        if not held_out:
            yield chunk.text
            total += len(chunk.text.encode())
        if total >= max_bytes:
            return


def summary(manifest: dict[str, Any]) -> str:
    """Return what was prepared, a line a split, with what was lost."""
    lines = []
    for name, split in manifest["splits"].items():
        unknown = split["num_unknown"] / max(split["num_tokens"], 1)
        lines.append(
            f"{name}: {split['num_rows']} rows of {manifest['row_length']} tokens from "
            f"{split['num_documents']} documents ({split['num_tokens']} tokens, {unknown:.2%} unknown, "
            f"{split['num_dropped']} dropped at the ends of units)"
        )
        if not split["num_rows"]:
            lines.append(f"{name} has no row: give more text or another --config.held_out.fraction")
    if manifest["num_replaced"]:
        lines.append(f"{manifest['num_replaced']} invalid UTF-8 sequences replaced")
    return "\n".join(lines)


def show_rows(workdir: str | Path, count: int) -> str:
    """Return the first rows of each split as text."""
    lines = []
    manifest = read_manifest(workdir)
    for split in SPLITS:
        if not manifest["splits"][split]["num_rows"]:
            continue
        rows = Rows.open(workdir, split)
        shown = np.arange(min(count, len(rows)))
        lines += [
            f"{split} {index}: {text}" for index, text in zip(shown, rows.decode(rows[shown]), strict=True)
        ]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Run `eelbert prepare` with the words after its name."""
    config, workdir, _ = cli.parse("prepare", argv)
    manifest = prepare_rows(config, workdir, sys.stderr)
    _write_config(config, storage.canonical(workdir).rstrip("/"))
    print(summary(manifest))
    if config.show_rows:
        print(show_rows(workdir, config.show_rows))
