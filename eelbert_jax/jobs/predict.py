"""`eelbert predict`: text in, label and probability out; with --fill_mask, words for [MASK].

    eelbert predict --checkpoint=runs/tiny-sst2 --text="a gorgeous, witty, seductive movie"
    eelbert predict --checkpoint=runs/tiny-mrpc --file=pairs.tsv --json > answers.jsonl
    eelbert predict --checkpoint=runs/tiny --fill_mask --text="the capital of [MASK] is paris." --top=5
    eelbert predict --checkpoint=runs/tiny-rte --glue_split=test --workdir=runs/submission

Reads a text a line, two texts separated by a tab, from a file or the standard input, and answers as it reads:
in the order of the lines and with a bounded number of them in memory.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from eelbert_jax.data.glue import check_labels, find_task, load_examples
from eelbert_jax.data.submission import submission_file, write_submission
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import command_line
from eelbert_jax.jobs.answers import Classifier, Guesses, MaskFiller, probabilities
from eelbert_jax.jobs.models import Finetuned, Pretrained, load_finetuned, load_pretrained
from eelbert_jax.jobs.task_data import decide, find_glue_dir

LINES_AT_ONCE = 1024
BATCH_SIZE = 32


class Query(NamedTuple):
    """One text or pair of texts, and where it stands for an error to say."""

    place: str
    first: str
    second: str | None


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


def check_number_of_texts(chunk: Sequence[Query], reads_pairs: bool, what: str) -> None:
    """Refuse a single text where pairs are read, and the other way round."""
    for query in chunk:
        if (query.second is not None) != reads_pairs:
            wanted = (
                "two texts: --text and --second_text, or a tab between them" if reads_pairs else "one text"
            )
            got = "one" if query.second is None else "two"
            raise UserError(f"{query.place}: {what} reads {wanted}; got {got}.")


def class_records(model: Finetuned, chunk: Sequence[Query], logits: np.ndarray) -> list[dict[str, Any]]:
    """Return an answer a query: its texts, and label, probability and all classes, or the score."""
    records: list[dict[str, Any]] = []
    shares = probabilities(logits)
    for query, row, outputs in zip(chunk, shares, logits, strict=True):
        record: dict[str, Any] = {"text": query.first}
        if query.second is not None:
            record["second_text"] = query.second
        if model.labels:
            best = int(np.argmax(row))
            record |= {"label": model.labels[best], "probability": float(row[best])}
            record["probabilities"] = dict(zip(model.labels, row.tolist(), strict=True))
        else:
            record["score"] = float(outputs[0])
        records.append(record)
    return records


def class_line(record: dict[str, Any], top: int) -> str:
    """Return an answer as tab-separated text: labels and probabilities, or the score; then the texts."""
    if "score" in record:
        fields = [f"{record['score']:.4f}"]
    else:
        ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])[:top]
        fields = [field for label, share in ranked for field in (label, f"{share:.4f}")]
    texts = [record[name] for name in ("text", "second_text") if name in record]
    return "\t".join([*fields, *texts])


def mask_record(query: Query, masks: Sequence[Guesses]) -> dict[str, Any]:
    """Return the answer to a text with masks."""
    named = [[{"token": token, "probability": share} for token, share in guesses] for guesses in masks]
    return {"text": query.first, "masks": named}


def mask_line(record: dict[str, Any]) -> str:
    """Return the answer to a text with masks as text: the text, and under it a line a mask."""
    lines = [", ".join(f"{g['token']} {g['probability']:.1%}" for g in mask) for mask in record["masks"]]
    return "\n  ".join([record["text"], *lines])


def answer(
    model: Finetuned | Pretrained, texts: Iterator[Query], *, top: int, as_json: bool, at_once: int
) -> Iterator[list[str]]:
    """Yield the lines to print for every chunk of `at_once` texts.

    Raises:
      UserError: there is no text, a text does not fit the model, or `top` is out of range.
    """
    if top < 1:
        raise UserError(f"--top={top} shows nothing; take 1 or more.")
    if isinstance(model, Finetuned):
        classifier = Classifier(model, min(BATCH_SIZE, at_once))
    else:
        filler = MaskFiller(model, top)
    for chunk in in_chunks(texts, at_once):
        first = [query.first for query in chunk]
        if isinstance(model, Finetuned):
            check_number_of_texts(chunk, model.reads_pairs, f"a model for {model.task}")
            second = [query.second or "" for query in chunk] if model.reads_pairs else None
            records = class_records(model, chunk, classifier.logits(first, second))
            lines = [class_line(record, top) for record in records]
        else:
            check_number_of_texts(chunk, False, "--fill_mask")
            records = [mask_record(*pair) for pair in zip(chunk, filler.guesses(first), strict=True)]
            lines = [mask_line(record) for record in records]
        yield [json.dumps(record, ensure_ascii=False) for record in records] if as_json else lines


def submit(model: Finetuned, split: str, workdir: str | Path, glue_dir: str | None) -> Path:
    """Write the predictions for a GLUE test split as the test server wants them, and return the file.

    Args:
      model: of an official task; one of MNLI also answers the diagnostic set, with the split "ax".
      split: a test split of the task.
      workdir: receives the file.
      glue_dir: folder in the GLUE layout; None asks TFDS.

    Raises:
      UserError: the task or the split takes no submission, or the labels are not the task's.
    """
    name, split = ("ax", "test") if (model.task, split) == ("mnli", "ax") else (model.task, split)
    task = find_task(name)
    submission_file(task, split)  # says so before the work where there is none
    check_labels(task.labels, model.labels)
    examples = load_examples(task, split, glue_dir=glue_dir)
    logits = Classifier(model, BATCH_SIZE).logits(examples.first, examples.second)
    return write_submission(workdir, task, split, examples.ids, decide(logits, task))


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    flags = command_line.parse("predict", argv).flags
    if not flags["checkpoint"]:
        raise UserError("predict needs a model: add --checkpoint=DIR, the workdir of a run.")
    if flags["glue_split"]:
        if not flags["workdir"] or flags["fill_mask"] or flags["text"] or flags["file"]:
            raise UserError(
                "--glue_split=SPLIT goes with --workdir=DIR and no text; see `eelbert predict --help`."
            )
        model = load_finetuned(flags["checkpoint"])
        print(submit(model, flags["glue_split"], flags["workdir"], find_glue_dir(None)))
        return
    texts = queries(flags["text"], flags["second_text"], flags["file"], sys.stdin.buffer)
    first = next(in_chunks(texts, 1))[0]  # an error in it is said before a model is loaded
    load = load_pretrained if flags["fill_mask"] else load_finetuned
    interactive = not flags["file"] and (flags["text"] or sys.stdin.isatty())
    for lines in answer(
        load(flags["checkpoint"]),
        itertools.chain([first], texts),
        top=flags["top"],
        as_json=flags["json"],
        at_once=1 if interactive else LINES_AT_ONCE,
    ):
        print("\n".join(lines), flush=True)
