"""Sentences without labels for a teacher to read: from text, tables, GLUE's training files, a vocabulary."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import ReadOptions, ReadTally
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.datasets.encoding import TextEncoder, text_encoder
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.splits import find_glue_dir
from eelbert_jax.datasets.tables import Tally, read_rows
from eelbert_jax.datasets.tasks import Task, find_task
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary

SENTENCE_END = re.compile(r"([.!?][\"'”’)]*)\s+(?=[\"'“‘(]*[A-Z0-9])")
"""A stop and what closes with it, before a capital: a line of one sentence stays whole."""
WORD = re.compile("[a-z]{3,}")
PASSAGE_WORDS = range(32, 81)


def read_sentences(settings: Mapping[str, Any], vocabulary: Vocabulary, lowercase: bool) -> list[np.ndarray]:
    """Return the ids of every distinct sentence of the sources that settings of `configs/embed.py` name.

    Returns:
      [CLS] a [SEP], integers [l], the shortest first; what has more than `max_length` tokens is left out.

    Raises:
      UserError: no source is named, one cannot be read, or there is no sentence.
    """
    for name in ("sentences_per_file", "passages_per_file"):
        if settings[name] < 0:
            raise UserError(f"{name} must not be negative, got {settings[name]}.")
    tasks = [find_task(name) for name in settings["glue_tasks"].split(",") if name]
    reader = _Reader(text_encoder(vocabulary, lowercase), settings["max_length"])
    sources: dict[str, Callable[[], Iterator[np.ndarray]]] = {
        "source": lambda: _of_text(reader, settings["source"], settings["sentences_per_file"]),
        "passages_per_file": lambda: reader.read(
            _passages(settings["source"], settings["passages_per_file"])
        ),
        "tables": lambda: reader.read(_of_tables(settings["tables"], settings["text_columns"].split(","))),
        "glue_tasks": lambda: reader.read(_of_glue(tasks, settings["glue_dir"])),
        "words": lambda: reader.read(filter(WORD.fullmatch, vocabulary.tokens)),
    }
    found: list[np.ndarray] = []
    for name in (name for name in sources if settings[name]):
        before, too_long = len(found), reader.too_long
        found.extend(sources[name]())
        print(
            f"{name}: {len(found) - before:,} sentences that were not there before; "
            f"{reader.too_long - too_long:,} of more than {settings['max_length']} tokens left out",
            flush=True,
        )
    if not found:
        raise UserError(
            "There are no sentences: set --config.source='DIR/*.txt', --config.tables='DIR/*.tsv', "
            "--config.glue_tasks=sst2,... or --config.words=True."
        )
    return sorted(found, key=len)


class _Reader:
    """Encode sentences that were not there before and are not too long."""

    def __init__(self, encoder: TextEncoder, max_length: int) -> None:
        if max_length < 3:
            raise UserError(f"max_length must be at least 3 ([CLS], a token, [SEP]), got {max_length}.")
        self._encoder, self._max_length = encoder, max_length
        self._seen: set[bytes] = set()
        self.too_long = 0

    def read(self, sentences: Iterable[str]) -> Iterator[np.ndarray]:
        vocabulary = self._encoder.vocabulary
        for sentence in sentences:
            ids = self._encoder.encode(sentence)
            if len(ids) + 2 > self._max_length:
                self.too_long += 1
            elif len(ids) and (key := ids.tobytes()) not in self._seen:
                self._seen.add(key)
                yield np.array([vocabulary.cls_id, *ids, vocabulary.sep_id], ids.dtype)


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text; a line's end ends one."""
    return SENTENCE_END.sub(r"\1\n", text).splitlines()


def _of_text(reader: _Reader, source: str, per_file: int) -> Iterator[np.ndarray]:
    """Yield the first `per_file` sentences, 0 for all, of each file or part of a dataset."""
    options = ReadOptions()
    for unit in find_units(source, SourceOptions(min_unit_bytes=1), options):
        sentences = (
            sentence for chunk in unit.read(options, ReadTally()) for sentence in split_sentences(chunk.text)
        )
        yield from itertools.islice(reader.read(sentences), per_file or None)


def _passages(source: str, per_file: int) -> Iterator[str]:
    """Yield the first `per_file` lines of `PASSAGE_WORDS` words of each file or part of a dataset."""
    options = ReadOptions()
    for unit in find_units(source, SourceOptions(min_unit_bytes=1), options):
        lines = (line for chunk in unit.read(options, ReadTally()) for line in chunk.text.splitlines())
        yield from itertools.islice((line for line in lines if len(line.split()) in PASSAGE_WORDS), per_file)


def _of_tables(pattern: str, columns: Sequence[str]) -> Iterator[str]:
    files = storage.find_files(storage.canonical(pattern))
    if not files:
        raise UserError(f"No file matches tables={pattern!r}. Give a glob in quotes.")
    for file in files:
        for row in read_rows(file.path, (), columns, Tally("skip")):
            yield from (row.fields[column] for column in columns if column in row.fields)


def _of_glue(tasks: Sequence[Task], glue_dir: str | None) -> Iterator[str]:
    for task in tasks:
        examples = load_examples(task, "train", glue_dir=find_glue_dir(glue_dir))
        yield from examples.first
        yield from examples.second or ()
