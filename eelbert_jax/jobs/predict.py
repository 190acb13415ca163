"""`eelbert predict`: text in, label and probability out; words for [MASK]; a tag for every word.

    eelbert predict --checkpoint=runs/tiny-sst2 --text="a gorgeous, witty, seductive movie"
    eelbert predict --checkpoint=runs/tiny-mrpc --file=pairs.tsv --json > answers.jsonl
    eelbert predict --checkpoint=runs/tiny --fill_mask --text="the capital of [MASK] is paris." --top=5
    eelbert predict --checkpoint=runs/tiny-tokens --text="Ada Lovelace was born in London ."
    eelbert predict --checkpoint=runs/tiny-rte --glue_split=test --workdir=runs/submission

Reads a text a line, two texts separated by a tab, from a file or the standard input, and answers as it reads:
in the order of the lines and with a bounded number of them in memory. A model that tags words takes what
white space separates as words, as its training files do.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eelbert_jax import cli
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.splits import find_glue_dir
from eelbert_jax.datasets.submission import submission_file, write_submission
from eelbert_jax.datasets.tasks import check_labels, find_task
from eelbert_jax.errors import UserError
from eelbert_jax.inference.answers import Query, responder
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Label, Model

LINES_AT_ONCE = 1024


def queries(text: str, second_text: str, file: str, stdin: BinaryIO) -> Iterator[Query]:
    """Yield the texts to answer: those of the command line, else of the file, else of the standard input.

    Raises:
      UserError: texts come from two places, the file cannot be read, or a line is no text.
    """
    if text and file:
        raise UserError("--text and --file both name texts; give one of them.")
    if second_text and not text:
        raise UserError("--second_text goes with --text; in a file a tab separates the two texts.")
    if text:
        if not text.strip() or (second_text and not second_text.strip()):
            raise UserError("--text is blank; give the text to answer.")
        yield Query("--text", text, second_text or None)
    elif file:
        try:
            stream = Path(file).expanduser().open("rb")
        except OSError as error:
            raise UserError(
                f"Cannot read {file}: {error.strerror}; name a file with a text a line."
            ) from error
        with stream:
            yield from read_lines(stream, file)
    else:
        if stdin.isatty():
            print("Reading texts from the terminal, one a line; Ctrl-D ends.", file=sys.stderr)
        yield from read_lines(stdin, "standard input")


def read_lines(stream: BinaryIO, name: str) -> Iterator[Query]:
    """Yield a query a line; a byte-order mark at the start is passed over.

    Every line has its answer, so that answers can be pasted beside it: one without text is an error.

    Raises:
      UserError: a line is no UTF-8, has no text or more than two.
    """
    for number, line in enumerate(stream, 1):
        place = f"{name}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{place} is no UTF-8 text; convert the file.") from error
        texts = text.split("\t")
        if len(texts) > 2 or not all(part.strip() for part in texts):
            raise UserError(
                f"{place} is {text[:80]!r}; expected a text, or two separated by one tab, and no empty line."
            )
        yield Query(place, texts[0], texts[1] if len(texts) == 2 else None)


def in_chunks(items: Iterator[Query], size: int) -> Iterator[list[Query]]:
    """Yield lists of `size` items, the last one shorter.

    Raises:
      UserError: there is no item.
    """
    chunk = list(itertools.islice(items, size))
    if not chunk:
        raise UserError(
            "There is no text to answer: give --text=..., --file=FILE or lines on standard input."
        )
    while chunk:
        yield chunk
        chunk = list(itertools.islice(items, size))


def answer(
    model: Model, texts: Iterator[Query], *, fill_mask: bool, top: int, as_json: bool, at_once: int
) -> Iterator[list[str]]:
    """Yield the lines to print for every chunk of `at_once` texts.

    Raises:
      UserError: there is no text, a text does not fit the model, or `top` is out of range.
    """
    if top < 1:
        raise UserError(f"--top={top} shows nothing; take 1 or more.")
    respond = responder(model, fill_mask=fill_mask, top=top)
    for chunk in in_chunks(texts, at_once):
        yield [json.dumps(record, ensure_ascii=False) if as_json else line for record, line in respond(chunk)]


def submit(model: Model, split: str, workdir: str | Path, glue_dir: str | None) -> Path:
    """Write the predictions for a GLUE test split as the test server wants them, and return the file.

    Args:
      model: of an official task; one of MNLI also answers the diagnostic set, with the split "ax".
      split: a test split of the task.
      workdir: receives the file.
      glue_dir: folder in the GLUE layout; None asks TFDS.

    Raises:
      UserError: the task or the split takes no submission, or the labels are not the task's.
    """
    record = model.require_task("classify", "regress")
    name, split = ("ax", "test") if (record.name, split) == ("mnli", "ax") else (record.name, split)
    task = find_task(name)
    submission_file(task, split)  # says so before the work where there is none
    check_labels(task.labels, record.labels)
    examples = load_examples(task, split, glue_dir=glue_dir)
    predictions = [
        task.labels.index(answer.label) if isinstance(answer, Label) else answer.score
        for answer in model.classify(examples.first, examples.second)
    ]
    return write_submission(workdir, task, split, examples.ids, np.array(predictions))


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    flags = cli.parse("predict", argv).flags
    if not flags["checkpoint"]:
        raise UserError("predict needs a model: add --checkpoint=DIR, the workdir of a run.")
    if flags["glue_split"]:
        if not flags["workdir"] or flags["fill_mask"] or flags["text"] or flags["file"]:
            raise UserError(
                "--glue_split=SPLIT goes with --workdir=DIR and no text; see `eelbert predict --help`."
            )
        model = load(flags["checkpoint"])
        print(submit(model, flags["glue_split"], flags["workdir"], find_glue_dir(None)))
        return
    texts = queries(flags["text"], flags["second_text"], flags["file"], sys.stdin.buffer)
    first = next(in_chunks(texts, 1))[0]  # an error in it is said before a model is loaded
    interactive = not flags["file"] and (flags["text"] or sys.stdin.isatty())
    for lines in answer(
        load(flags["checkpoint"]),
        itertools.chain([first], texts),
        fill_mask=flags["fill_mask"],
        top=flags["top"],
        as_json=flags["json"],
        at_once=1 if interactive else LINES_AT_ONCE,
    ):
        print("\n".join(lines), flush=True)
