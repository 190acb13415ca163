"""Sentences with a tag for every word, from files of columns: CoNLL-2003 and its kin, CoNLL-U."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eelbert_jax.datasets.entities import OUTSIDE, are_entity_tags
from eelbert_jax.datasets.tables import Tally, is_text, read_lines
from eelbert_jax.datasets.tasks import TAG
from eelbert_jax.errors import UserError

TOKENS = "tokens"
"""Name of the task of a user's own files of words and tags."""
DOCUMENT_MARK = "-DOCSTART-"
CONLLU_COLUMNS = 10
CONLLU_ID = re.compile(r"\d+([-.]\d+)?")
"""A word's number; that of a multiword token has a hyphen, that of an empty node a point."""
ATTRIBUTE = re.compile(r"#\s*[\w.:]+\s*=\s")
"""A comment of CoNLL-U that other files of columns have taken over."""


@dataclasses.dataclass(frozen=True)
class TokenTask:
    """Describe a task of a tag for every word, in the terms of `tasks.Task`."""

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    name: str = TOKENS
    official: bool = False
    kind: str = TAG
    reads_pairs: bool = False

    @property
    def num_labels(self) -> int:
        """Outputs of the task's head for every token."""
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class TokenExamples:
    """Hold the sentences of one file; `tags` are int32 [words] each, None where they are hidden."""

    words: tuple[tuple[str, ...], ...]
    tags: tuple[np.ndarray, ...] | None
    labels: tuple[str, ...]
    tally: Tally

    def __len__(self) -> int:
        return len(self.words)


class _Line(NamedTuple):
    number: int
    text: str


def token_task(labels: Sequence[str], name: str = TOKENS) -> TokenTask:
    """Return the task of some tags: scored by whole entities where they are of entities, else by words."""
    if are_entity_tags(labels):
        return TokenTask(tuple(labels), ("entity_f1", "accuracy"), name)
    some = ", ".join(labels[:5])
    print(f"{name}: the tags ({some}, ...) are in no scheme of entities; accuracy over words is the score.")
    return TokenTask(tuple(labels), ("accuracy",), name)


def load_conll(
    path: str,
    labels: Sequence[str] = (),
    *,
    word_column: int = 0,
    tag_column: int | None = -1,
    on_bad_record: str = "refuse",
) -> TokenExamples:
    """Read a file of columns, apart by tabs where a line has one, else by spaces; blank lines end sentences.

    `-DOCSTART-` lines, comments, and CoNLL-U's multiword tokens and empty nodes are no words. Source: the
    CoNLL-2003 shared task; Universal Dependencies for CoNLL-U.

    Args:
      labels: the tags in the order of their ids; empty: those of this file, O first and the others sorted.
      word_column: place of the word, from 0, or from -1 for the last.
      tag_column: place of the tag; None: the file has none.
      on_bad_record: "refuse" or "skip" a sentence with too few columns, no text or an unknown tag.
    """
    tally = Tally(on_bad_record)
    labels = tuple(label.strip() for label in labels)
    sentences: list[list[tuple[str, str]]] = []
    for lines in _sentences(path, word_column, tally):
        try:
            sentences.append([_word_and_tag(path, line, word_column, tag_column, labels) for line in lines])
        except ValueError as error:
            tally.bad_record(str(error))
    if not sentences:
        raise UserError(
            f"{path} has no sentence; expected one word a line with its tag ({tally.describe()})."
        )
    if tag_column is not None and not labels:
        found = {tag for sentence in sentences for _, tag in sentence}
        labels = tuple(sorted(found, key=lambda tag: (tag != OUTSIDE, tag)))
    ids = {tag: i for i, tag in enumerate(labels)}
    tally.examples = len(sentences)
    return TokenExamples(
        words=tuple(tuple(word for word, _ in sentence) for sentence in sentences),
        tags=None
        if tag_column is None
        else tuple(np.array([ids[tag] for _, tag in sentence], np.int32) for sentence in sentences),
        labels=labels,
        tally=tally,
    )


def read_words(path: str, word_column: int, tally: Tally) -> Iterator[tuple[str, tuple[str, ...] | str]]:
    """Yield the place of every sentence, as the file is read, and its words or what is wrong with them."""
    for lines in _sentences(path, word_column, tally):
        place = f"{path}, line {lines[0].number}"
        try:
            yield place, tuple(_word_and_tag(path, line, word_column, None, ())[0] for line in lines)
        except ValueError as error:
            yield place, str(error)


def _sentences(path: str, word_column: int, tally: Tally) -> Iterator[list[_Line]]:
    lines = (_Line(number, text) for number, text in enumerate(read_lines(path, tally), start=1))
    head, first = _until_first_word(lines)
    is_conllu = len(first) == CONLLU_COLUMNS and CONLLU_ID.fullmatch(first[0]) is not None
    if is_conllu and word_column % CONLLU_COLUMNS == 0:
        raise UserError(
            f"{path} is CoNLL-U, whose column 0 numbers the words; set --config.tokens.word_column=1 and "
            "--config.tokens.tag_column, 3 for the universal parts of speech; to predict, --text_column=1."
        )
    sentence: list[_Line] = []
    for line in itertools.chain(head, lines, [_Line(0, "")]):
        if not line.text.strip() or line.text.startswith(DOCUMENT_MARK):
            tally.blank_lines += line.number > 0 and not line.text.strip()
            if sentence and all(is_text(f"{path}, line {n}", text, tally) for n, text in sentence):
                yield sentence
            sentence = []
        elif _is_word(line.text, is_conllu, len(first), not sentence):
            sentence.append(line)
        else:
            tally.other_lines += 1


def _until_first_word(lines: Iterator[_Line]) -> tuple[list[_Line], list[str]]:
    """Return the lines up to the first with a word, and its columns."""
    head = []
    for line in lines:
        head.append(line)
        if line.text.strip() and not line.text.startswith(("#", DOCUMENT_MARK)):
            return head, _columns(line.text)
    return head, []


def _is_word(text: str, is_conllu: bool, width: int, is_first: bool) -> bool:
    """Return whether a line that is not blank has a word; "#" may be one, with as many columns as others."""
    columns = _columns(text)
    if is_conllu:
        return not text.startswith("#") and ("-" not in columns[0] and "." not in columns[0])
    is_comment = text.startswith("#") and (len(columns) != width or ATTRIBUTE.match(text) is not None)
    return not (is_first and is_comment)


def _columns(text: str) -> list[str]:
    """Cut a line at its tabs, else at spaces; a no-break space is part of a word."""
    return text.split("\t") if "\t" in text else [column for column in text.split(" ") if column]


def _word_and_tag(
    path: str, line: _Line, word_column: int, tag_column: int | None, labels: Sequence[str]
) -> tuple[str, str]:
    """Return the word and the tag of a line, "" for no tag; a ValueError says what is wrong with it."""
    place, columns = f"{path}, line {line.number}", _columns(line.text)
    wanted = [word_column] if tag_column is None else [word_column, tag_column]
    last = len(columns)
    is_there = all(-last <= column < last and columns[column].strip(" ") for column in wanted)
    if not is_there or len({column % last for column in wanted}) < len(wanted):
        tag = f" and the tag in column {tag_column}"
        flags = "--config.tokens.word_column and --config.tokens.tag_column"
        if tag_column is None:
            tag, flags = "", "--text_column"
        raise ValueError(
            f"{place}: {last} column{'s' * (last != 1)} in {line.text[:60]!r}; expected the word in column "
            f"{word_column}{tag}, counted from 0 or from -1 for the last: set {flags}."
        )
    tag = "" if tag_column is None else columns[tag_column].strip()
    if tag and labels and tag not in labels:
        raise ValueError(
            f"{place}: {tag!r} is none of the tags {', '.join(labels)}; mend the line, or set "
            "--config.tokens.labels to all tags or --config.tokens.tag_column to their column."
        )
    return columns[word_column], tag
