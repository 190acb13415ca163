"""`eelbert prepare`: text to rows of token ids."""

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import ReadOptions
from eelbert_jax.corpus.prepare import choose_engine, choose_vocabulary, prepare
from eelbert_jax.corpus.rows import SPLITS, Rows, read_manifest
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.corpus.units import Settings
from eelbert_jax.errors import UserError
from eelbert_jax.workdir import CONFIG_NAME

MIB = 1 << 20
TERMINAL_SECONDS, LOG_SECONDS = 0.5, 15.0


class ProgressLine:
    """Show the share of the input done, the speed of this run and the time left."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._began = self._shown = time.monotonic()
        self._interval = TERMINAL_SECONDS if stream.isatty() else LOG_SECONDS

    def __call__(self, total: int, before: int, now: int) -> None:
        """Take bytes: of the input, finished by earlier runs, and consumed by this one."""
        moment = time.monotonic()
        if not now:
            self._began = self._shown = moment
        if moment - self._shown < self._interval or not now:
            return
        self._shown = moment
        speed = now / (moment - self._began)
        left = max(total - before - now, 0) / speed
        text = (
            f"{(before + now) / total:6.1%} of {total / MIB:.0f} MiB of input, "
            f"{speed / MIB:.2f} MiB/s, {left / 60:.1f} min left"
        )
        self._stream.write(f"\r{text}\033[K" if self._stream.isatty() else f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the terminal's cursor on a new line."""
        if self._stream.isatty():
            self._stream.write("\n")


def prepare_rows(config: ml_collections.ConfigDict, workdir: str | Path, stream: TextIO) -> dict[str, Any]:
    """Prepare the rows that a config describes, report to `stream`, and return the manifest."""
    for name, mib in (("train_vocabulary", config.train_vocabulary.max_mib), ("docs", config.docs.max_mib)):
        if not mib > 0.0:
            raise UserError(f"config.{name}.max_mib must be positive, got {mib}.")
    read = ReadOptions(config.text_field, config.file_format, config.on_invalid_utf8, config.on_bad_record)
    options = SourceOptions(
        min_unit_bytes=round(config.unit_mib.min * MIB),
        max_unit_bytes=round(config.unit_mib.max * MIB),
        tfds_split=config.tfds.split,
        tfds_data_dir=config.tfds.data_dir,
        tfds_download=config.tfds.download,
        docs_bytes=round(config.docs.max_mib * MIB),
    )
    settings = Settings(
        row_length=config.row_length,
        lowercase=config.lowercase,
        held_out_fraction=config.held_out.fraction,
        held_out_seed=config.held_out.seed,
        trained_vocabulary_size=0 if config.vocabulary else config.train_vocabulary.size,
        read=read,
    )
    directory = storage.canonical(workdir).rstrip("/")
    progress = ProgressLine(stream)
    engine = choose_engine(config.engine, config.workers, config.beam.args, progress)
    units = find_units(config.source, options, read)

    def say(line: str) -> None:
        print(line, file=stream, flush=True)

    training_bytes = round(config.train_vocabulary.max_mib * MIB)
    vocabulary = choose_vocabulary(config.vocabulary, units, settings, directory, training_bytes, say)
    limit = config.max_unknown_percent
    try:
        return prepare(units, settings, vocabulary, config.source, directory, engine, limit, say)
    finally:
        progress.close()


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
    """Run the job from the command line."""
    config, workdir, _ = cli.parse("prepare", argv)
    manifest = prepare_rows(config, workdir, sys.stderr)
    written = json.dumps(config.to_dict(), indent=2) + "\n"
    storage.write_bytes(f"{storage.canonical(workdir).rstrip('/')}/{CONFIG_NAME}", written.encode())
    print(summary(manifest))
    if config.show_rows:
        print(show_rows(workdir, config.show_rows))
