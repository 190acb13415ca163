"""How many short texts a second does `eelbert predict` answer on one core?

    python benchmarks/predict.py [--size=uno] [--texts=16384] [--turns=5] [--quick] [--json]

Processes that are bound to one core answer the same phrases of SST-2's training file and take turns; loading
and compiling come before. Counted is the processor's time, which other work on the machine changes little.

    predict        `eelbert predict --file=phrases.txt --output=answers.jsonl`: reads lines, writes JSON lines
    classify       the same from a list of texts to a list of answers, as from Python
    pipeline       transformers' pipeline on the exported folder, --batch texts at a time
    torch          the same folder in a loop: the fast tokenizer, texts sorted by length, --batch at a time
    bag_of_words   the project's baseline: scikit-learn's counts and logistic regression

All but the first go from list to list. The model is fine-tuned on --examples phrases before; its four ways
have to give the same probabilities, or the benchmark fails.

Reads SST-2 and the vocabulary from the folder that EELBERT_DATA names.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from finetune import Turn, our_config, write_sample

import _measure

OURS, BASELINES = ("predict", "classify"), ("pipeline", "torch", "bag_of_words")
MODEL, FOLDER, PHRASES = "model", "folder", "phrases.txt"
TOLERANCE = 1e-5
"""Of a mean of probabilities: the ways round float32 differently."""
Answering = Callable[[], list[float]]
"""Gives the probability of the class "positive" for every text."""


def make_model(options: argparse.Namespace) -> None:
    """Fine-tune, write the model for transformers too, and write the phrases."""
    from eelbert_jax.inference.load import load
    from eelbert_jax.interchange.folder import write_folder
    from eelbert_jax.jobs.finetune import finetune

    finetune(our_config("hash", options), Path(options.glue) / MODEL)
    model = load(Path(options.glue) / MODEL)
    write_folder(
        Path(options.glue) / FOLDER,
        model.config,
        model.vocabulary,
        model.params,
        lowercase=model.lowercase,
        task=model.task,
    )
    (Path(options.glue) / PHRASES).write_text("\n".join([*phrases(options.texts), ""]), encoding="utf-8")


def phrases(count: int) -> list[str]:
    """Return the first phrases of SST-2's training file."""
    file = _measure.data_folder("glue/SST-2") / "glue" / "SST-2" / "train.tsv"
    return [row.split("\t")[0].strip() for row in file.read_text(encoding="utf-8").split("\n")[1 : count + 1]]


def predict(options: argparse.Namespace, texts: list[str]) -> list[float]:
    """Answer as the command does, from the file to a file."""
    import json

    from eelbert_jax.datasets.tables import Tally
    from eelbert_jax.inference.answers import answer_all, writer
    from eelbert_jax.inference.queries import Source, read_queries

    source = Source("", "", str(Path(options.glue) / PHRASES), "", "", reads_pairs=False)
    output, tally = Path(options.glue) / f"{os.getpid()}.jsonl", Tally()
    with writer(str(output), as_json=True, top=1) as write:
        for records in answer_all(options.question, read_queries(source, sys.stdin.buffer, tally), tally):
            write(records)
    assert tally.examples == len(texts)
    options.clock_stopped = time.process_time()
    answers = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    return [answer["probabilities"]["positive"] for answer in answers]


def answering(options: argparse.Namespace, texts: list[str]) -> Answering:
    """Return what answers the texts for the worker's case."""
    folder = Path(options.glue)
    if options.worker in OURS:
        from eelbert_jax.inference.answers import Question
        from eelbert_jax.inference.load import load

        model = load(folder / MODEL)
        options.question = Question(model)
        if options.worker == "predict":
            return lambda: predict(options, texts)
        classified: Any = model.classify
        return lambda: [answer.probabilities["positive"] for answer in classified(texts)]
    if options.worker == "bag_of_words":
        from eelbert_jax.datasets.baselines import LinearBaseline
        from eelbert_jax.datasets.glue import load_examples
        from eelbert_jax.datasets.tasks import CLASSIFY, find_task

        train = load_examples(find_task("sst2"), "train", glue_dir=options.glue)
        assert train.labels is not None
        baseline = LinearBaseline.fit("bag_of_words", train.first, None, train.labels, CLASSIFY)
        return lambda: [float(label) for label in baseline.predict(texts, None)]
    return in_torch(options, folder / FOLDER, texts)


def in_torch(options: argparse.Namespace, folder: Path, texts: list[str]) -> Answering:
    """Return what answers by transformers, its pipeline or a loop that sorts texts by their length."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(str(folder)).eval()
    if options.worker == "pipeline":
        asked = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
        return lambda: [
            found["score"] if found["label"] == "positive" else 1 - found["score"]
            for found in asked(texts, batch_size=options.batch, truncation=True)
        ]

    def shares(batch: Any) -> list[float]:
        return model(**batch).logits.softmax(-1)[:, 1].tolist()

    return lambda: by_length(tokenizer, shares, texts, options.batch)


def by_length(tokenizer: Any, ask: Callable[[Any], Any], texts: Sequence[str], size: int) -> list[Any]:
    """Return what `ask` says of every text in PyTorch, `size` of like length at a time."""
    import torch

    ids = tokenizer(list(texts), truncation=True, max_length=128)
    order = np.argsort([len(row) for row in ids["input_ids"]], kind="stable")
    answers: list[Any] = [None] * len(texts)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = tokenizer.pad({key: [ids[key][i] for i in rows] for key in ids}, return_tensors="pt")
        with torch.inference_mode():
            for row, answer in zip(rows, ask(batch), strict=True):
                answers[row] = answer
    return answers


def prepare(options: argparse.Namespace) -> Turn:
    """Return what the worker's case does in a turn."""
    texts = (Path(options.glue) / PHRASES).read_text(encoding="utf-8").splitlines()
    answer = answering(options, texts)
    answer()  # compiles, and fills what is remembered of words on either side

    def turn() -> dict[str, float]:
        options.clock_stopped = None
        began = time.process_time()
        answers = np.array(answer())
        ended = options.clock_stopped or time.process_time()
        return {
            "texts/s": len(texts) / (ended - began),
            "mean": float(np.mean(answers * np.linspace(0, 1, len(texts)))),  # weighted: the order counts
        }

    return turn


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Let the cases take turns and return the median of each, in texts a second."""
    passed = [f"--{name}={getattr(options, name)}" for name in ("glue", "batch")]
    answers = _measure.take_turns(__file__, (*OURS, *BASELINES), passed, options.turns)
    said = {case: found[0]["mean"] for case, found in answers.items() if case != "bag_of_words"}
    if max(said.values()) - min(said.values()) > TOLERANCE:
        raise RuntimeError(f"The ways to answer disagree: {said}.")
    return {case: statistics.median(found["texts/s"] for found in turns) for case, turns in answers.items()}


def main() -> None:
    """Compare the ways to answer many short texts."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--size", default="uno", choices=("uno", "tiny", "mini"), help="encoder size")
    parser.add_argument("--texts", type=int, default=16384, help="texts a turn (default: 16384)")
    parser.add_argument("--examples", type=int, default=2048, help="to fine-tune on (default: 2048)")
    parser.add_argument("--batch", type=int, default=32, help="texts at a time in torch (default: 32)")
    parser.add_argument("--turns", type=int, default=5, help="turns of every case (default: 5)")
    parser.add_argument("--worker", choices=(*OURS, *BASELINES), help=argparse.SUPPRESS)
    parser.add_argument("--glue", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before the libraries ask for the cores
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        _measure.serve(lambda: prepare(options))
        return
    data = _measure.data_folder("glue/SST-2 and vocab/vocab.txt")
    if options.quick:
        options.texts, options.examples, options.turns = 1024, 256, 2
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        options.glue, options.vocabulary = folder, str(data / "vocab" / "vocab.txt")
        write_sample(data / "glue", Path(folder), options.examples)
        with contextlib.redirect_stdout(sys.stderr):
            make_model(options)
        figures = measure(options)
    setting = f"{options.size}, {options.texts} phrases of SST-2, one core, processor time"
    for ours, baseline in [(ours, baseline) for ours in OURS for baseline in BASELINES]:
        case = f"{setting}: {ours} against {baseline}"
        _measure.report("predict", case, figures[ours], figures[baseline], "texts/s", options.json)


if __name__ == "__main__":
    main()
