"""Sentences with a tag for every word, from files in CoNLL's columns.

One word a line, a blank line between sentences. Leaves word pieces to `encoding` and entities to
`eelbert_jax.datasets.metrics`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eelbert_jax.datasets.tables import Tally, read_text
from eelbert_jax.datasets.tasks import TAG
from eelbert_jax.errors import UserError

TOKENS = "tokens"
"""Name of the task of a user's own files of words and tags."""
DOCUMENT_MARK = "-DOCSTART-"
OUTSIDE = "O"


@dataclasses.dataclass(frozen=True)
class TokenTask:
    """Describe a task of a tag for every word, in the terms of `eelbert_jax.datasets.tasks.Task`.

    Attributes:
      labels: names of the tags in the order of their ids.
      metrics: names in `training.metrics.METRICS`; the first one selects the best step.
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    name: str = TOKENS
    official: bool = False
    is_regression: bool = False
    kind: str = TAG

    @property
    def num_labels(self) -> int:
        """Outputs of the task's head for every token."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class TokenExamples:
    """Hold the sentences of one file in their order.

    Attributes:
      words: n sentences, each of one word or more.
      tags: for every sentence the tag ids of its words, int32 [words]; None where they are hidden.
      labels: names of the tags in the order of their ids.
      tally: what the reader met; `blank_lines` are those between sentences.
    """

    words: tuple[tuple[str, ...], ...]
    tags: tuple[np.ndarray, ...] | None
    labels: tuple[str, ...]
    tally: Tally

    def __len__(self) -> int:
        """Return n."""
        return len(self.words)


def load_conll(
    path: str, labels: Sequence[str] = (), *, word_column: int = 0, tag_column: int | None = -1
) -> TokenExamples:
    """Read a file of columns, apart by tabs where a line has one, else by white space.

    Lines that mark a document (`-DOCSTART-`) are no sentence. Source: the CoNLL-2003 shared task.

    Args:
      path: the file.
      labels: the tags in the order of their ids, as the training file's `labels` give them; empty: those of
        this file, O first and the others sorted.
      word_column: place of the word, from 0, or from -1 for the last.
      tag_column: place of the tag; None: the file has none.

    Raises:
      UserError: the file cannot be read or has no sentence, a line has too few columns, or a tag is none of
        `labels`.
    """
    tally = Tally()
    sentences: list[list[tuple[str, str]]] = [[]]
    place_of: dict[str, int] = {}
    for line, text in enumerate(read_text(Path(path), tally).split("\n"), start=1):
        if not text.strip() or text.startswith(DOCUMENT_MARK):
            tally.blank_lines += not text.strip()
            if sentences[-1]:
                sentences.append([])
            continue
        word, tag = _word_and_tag(f"{path}, line {line}", text, word_column, tag_column)
        sentences[-1].append((word, tag))
        place_of.setdefault(tag, line)
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise UserError(f"{path} has no sentence; expected one word a line with its tag.")
    if tag_column is not None:
        labels = labels or sorted(place_of, key=lambda tag: (tag != OUTSIDE, tag))
        for tag, line in place_of.items():
            if tag not in labels:
                raise UserError(f"{path}, line {line}: {tag!r} is none of the tags {', '.join(labels)}.")
    ids = {tag: i for i, tag in enumerate(labels)}
    tally.examples = len(sentences)
    return TokenExamples(
        words=tuple(tuple(word for word, _ in sentence) for sentence in sentences),
        tags=None
        if tag_column is None
        else tuple(np.array([ids[tag] for _, tag in sentence], np.int32) for sentence in sentences),
        labels=tuple(labels),
        tally=tally,
    )


def _word_and_tag(place: str, text: str, word_column: int, tag_column: int | None) -> tuple[str, str]:
    """Return the word and the tag of a line, "" for no tag.

    Raises:
      UserError: a column is not there or both are the same.
    """
    columns = text.rstrip("\r").split("\t") if "\t" in text else text.split()
    last = len(columns)
    wanted = [word_column] if tag_column is None else [word_column, tag_column]
    if not all(-last <= column < last for column in wanted) or len({c % last for c in wanted}) < len(wanted):
        raise UserError(
            f"{place}: {last} column{'s' * (last > 1)} in {text[:60]!r}; expected the word in column "
            f"{word_column} and the tag in column {tag_column}, counted from 0 or from -1 for the last."
        )
    word = columns[word_column]
    return word, "" if tag_column is None else columns[tag_column].strip()
