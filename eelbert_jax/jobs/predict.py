"""`eelbert predict`: text in; labels, tags, words for [MASK] or vectors out.

    eelbert predict --checkpoint=runs/tiny-sst2 --text="a gorgeous, witty, seductive movie"
    eelbert predict --checkpoint=runs/tiny --fill_mask --text="the capital of [MASK] is paris." --top=5

A written line is answered before the next is read. A tagger takes as words what white space separates.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eelbert_jax import cli
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.splits import find_glue_dir
from eelbert_jax.datasets.submission import submission_file, write_submission
from eelbert_jax.datasets.tables import Tally
from eelbert_jax.datasets.tasks import check_labels, find_task
from eelbert_jax.errors import UserError
from eelbert_jax.inference.answers import Question, answer_all, writer
from eelbert_jax.inference.labels import Label
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.inference.queries import Source, read_queries


def submit(model: Model, split: str, workdir: str | Path, glue_dir: str | None) -> Path:
    """Write the predictions for a GLUE test split as the test server wants them, and return the file.

    MNLI also answers the diagnostic set, as the split "ax". Without a `glue_dir` TFDS is asked.
    """
    record = model.require_task("classify", "regress")
    name, split = ("ax", "test") if (record.name, split) == ("mnli", "ax") else (record.name, split)
    task = find_task(name)
    submission_file(task, split)  # says so before the work where there is none
    check_labels(task.labels, record.labels)
    examples = load_examples(task, split, glue_dir=glue_dir)
    answers: Sequence[Any] = model.classify(examples.first, examples.second)
    predictions = [
        task.labels.index(answer.label) if isinstance(answer, Label) else answer.score for answer in answers
    ]
    return write_submission(workdir, task, split, examples.ids, np.array(predictions))


def answer(flags: dict[str, Any]) -> None:
    """Answer the texts that the flags name; those before one that cannot be answered have their answers."""
    if flags["top"] < 1:
        raise UserError(f"--top={flags['top']} shows nothing; take 1 or more.")
    if flags["fill_mask"] and flags["embed"]:
        raise UserError("--fill_mask and --embed ask for two things; give one of them.")
    source = Source(**{name: flags[name] for name in Source._fields if name in flags}, reads_pairs=False)
    source.check()
    question = Question(
        load(flags["checkpoint"]), flags["fill_mask"], flags["embed"], flags["top"], flags["stride"]
    )
    question.check()
    tally = Tally("skip" if flags["skip_bad"] else "refuse", skip_option="--skip_bad")
    source = source._replace(reads_pairs=question.reads_pairs)
    chunks = read_queries(source, sys.stdin.buffer, tally)
    cut = 0
    with writer(flags["output"], as_json=flags["json"], top=flags["top"]) as write:
        for records in answer_all(question, chunks, tally):
            write(records)
            cut += sum(record.get("truncated", False) for record in records)
    if cut:
        print(
            f"{cut} of {tally.examples} texts were cut to {question.model.max_length} tokens; "
            "--stride=N reads them whole.",
            file=sys.stderr,
        )
    if tally.bad_records:
        print(f"{tally.bad_records} texts were left out.", file=sys.stderr)


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    flags = cli.parse("predict", argv).flags
    if not flags["checkpoint"]:
        raise UserError("predict needs a model: add --checkpoint=DIR, the workdir of a run.")
    if not flags["glue_split"]:
        answer(flags)
        return
    if not flags["workdir"] or flags["fill_mask"] or flags["text"] or flags["file"]:
        raise UserError("--glue_split=SPLIT goes with --workdir=DIR and no text; see eelbert predict --help.")
    print(submit(load(flags["checkpoint"]), flags["glue_split"], flags["workdir"], find_glue_dir(None)))
