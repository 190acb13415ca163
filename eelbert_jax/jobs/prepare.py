"""`eelbert prepare`: text to rows of token ids.

eelbert prepare --config=configs/prepare.py --config.source=SOURCE --config.vocabulary=FILE --workdir=DIR
"""

import functools
import importlib.util
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import ReadOptions
from eelbert_jax.corpus.prepare import Engine, choose_vocabulary, prepare, run_here
from eelbert_jax.corpus.rows import SPLITS, Rows, read_manifest
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.corpus.units import Settings
from eelbert_jax.corpus.workers import usable_cores
from eelbert_jax.errors import UserError
from eelbert_jax.workdir import CONFIG_NAME

MIB = 1 << 20
ENGINES = ("local", "beam")
TERMINAL_SECONDS, LOG_SECONDS = 0.5, 15.0


class ProgressLine:
    """Show the share of the input consumed, the speed and the time left.

    What earlier runs finished counts as done, not as speed.
    """

    def __init__(self, total_bytes: int, stream: TextIO):
        """Start the clock; one line is rewritten on a terminal, else lines are added now and then."""
        self._total = total_bytes
        self._stream = stream
        self._began = self._shown = time.monotonic()
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
    """Prepare the rows that `configs/prepare.py` describes, tell `stream` of it, and return the manifest."""
    read = ReadOptions(config.text_field, config.file_format, config.on_invalid_utf8, config.on_bad_record)
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

    def say(line: str) -> None:
        print(line, file=stream, flush=True)

    training_bytes = round(config.train_vocabulary.max_mib * MIB)
    vocabulary = choose_vocabulary(config.vocabulary, units, settings, directory, training_bytes, say)
    progress = ProgressLine(sum(unit.num_bytes for unit in units), stream)
    engine, limit = _engine(config, progress), config.max_unknown_percent
    try:
        return prepare(units, settings, vocabulary, config.source, directory, engine, limit, say)
    finally:
        progress.close()


def _check_engine(config: ml_collections.ConfigDict) -> None:
    """Refuse an engine that is not there, before any work."""
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
        from eelbert_jax.corpus import beam

        return functools.partial(beam.run_pipeline, args=shlex.split(config.beam.args))
    return functools.partial(run_here, workers=config.workers or usable_cores(), report=progress)


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
    if manifest["num_bad"]:
        lines.append(f"{manifest['num_bad']} bad records skipped, the first: {manifest['first_bad']}")
    return "\n".join(lines)


def show_rows(workdir: str | Path, count: int) -> str:
    """Return the first rows of each split as text."""
    lines = []
    manifest = read_manifest(workdir)
    for split in SPLITS:
        if manifest["splits"][split]["num_rows"]:
            rows = Rows.open(workdir, split)
            texts = rows.decode(rows[np.arange(min(count, len(rows)))])
            lines += [f"{split} {index}: {text}" for index, text in enumerate(texts)]
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Run `eelbert prepare` with the words after its name."""
    config, workdir, _ = cli.parse("prepare", argv)
    manifest = prepare_rows(config, workdir, sys.stderr)
    written = json.dumps(config.to_dict(), indent=2) + "\n"
    storage.write_bytes(f"{storage.canonical(workdir).rstrip('/')}/{CONFIG_NAME}", written.encode())
    print(summary(manifest))
    if config.show_rows:
        print(show_rows(workdir, config.show_rows))
