"""How fast is fine-tuning, against transformers' Trainer with PyTorch?

    python benchmarks/finetune.py [--size=tiny] [--examples=4096] [--whole] [--quick] [--json]

Four processes fine-tune on the same examples of SST-2's training file, every n-th from the first, and take
turns; a turn is an epoch of batches of 32 examples of at most 128 tokens, float32, dropout 0.1, clipping at
1.0, AdamW, linear schedule, all cores. Texts are encoded before, on both sides.

    table, hash        the training path of `eelbert finetune`: its batches by length, its step, its loop
    trainer            transformers.Trainer as the script `run_glue` sets it up, its collator padding each
                       batch to its longest example (--pad_to_max_length=False)
    padded             the same with run_glue's own default: every example padded to 128 tokens

All four processes keep freed memory as `eelbert` does (`eelbert_jax.memory`), and Trainer gets its default
optimizer, fused AdamW. Models start from scratch, which changes no speed; from 2,048 examples on
the loss has to fall, or the case fails.

`--cpu_time` counts, in place of seconds on the clock, the processor's seconds for the process, on one core:
what can be compared on a machine with other work on it.

`--whole` times instead a run from the text to the score: reading, encoding, compiling, an epoch, evaluation
on the development set before and after it on our side and after it on Trainer's, saving.

Reads SST-2 and the vocabulary from the folder that EELBERT_DATA names.
"""

import argparse
import functools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import _measure
from eelbert_jax.datasets.glue import Examples, load_examples
from eelbert_jax.datasets.tasks import find_task

OURS, BASELINES = ("table", "hash"), ("trainer", "padded")
EMBEDDINGS = {"table": "table", "hash": "ngram_hash"}
BATCH_SIZE, MAX_LENGTH, LEARNING_RATE = 32, 128, 3e-4
FEWEST_TO_LEARN = 2048
Turn = Callable[[], dict[str, float]]


def write_sample(source: Path, target: Path, num_examples: int) -> None:
    """Write a GLUE folder with `num_examples` of SST-2's training rows and its whole development file."""
    folder = target / "SST-2"
    folder.mkdir()
    header, *rows = (source / "SST-2" / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    every = len(rows) // num_examples
    if not every:
        raise SystemExit(f"error: --examples={num_examples}, but SST-2 has {len(rows)} rows to train on")
    lines = [header, *rows[: every * num_examples : every]]
    (folder / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(source / "SST-2" / "dev.tsv", folder)


def check_learned(case: str, losses: list[float], num_examples: int) -> None:
    """Fail where the mean loss of an epoch's last quarter is not below that of its first.

    Of few examples that says nothing, and they are a check and no figure.
    """
    if num_examples < FEWEST_TO_LEARN:
        return
    first, *_, last = np.array_split(np.array(losses, np.float64), 4)
    if not last.mean() < first.mean():
        raise RuntimeError(f"{case}: the loss did not fall, {first.mean():.4f} to {last.mean():.4f}.")


def our_config(case: str, options: argparse.Namespace) -> Any:
    """Return the config of `eelbert finetune` for a case; the defaults are what is measured."""
    from eelbert_jax.config_files import load_config

    config = load_config(f"configs/glue.py:{options.size},task=sst2,embedding={EMBEDDINGS[case]}")
    config.data.glue_dir, config.vocabulary = options.glue, options.vocabulary
    config.num_epochs, config.batch_size, config.max_length = 1, BATCH_SIZE, MAX_LENGTH
    config.opt.learning_rate = LEARNING_RATE
    return config


def our_epoch(config: Any, objective: Any, case: str, clock: Callable[[], float]) -> Turn:
    """Return an epoch of `eelbert finetune`, without its evaluation and saving."""
    import jax
    import jax.numpy as jnp

    from eelbert_jax.jobs.fitting import make_fit_config
    from eelbert_jax.training import loop
    from eelbert_jax.training.fit import Start, fresh_state
    from eelbert_jax.training.optimizer import make_optimizer
    from eelbert_jax.training.step import make_train_step
    from eelbert_jax.training.supervision import Goodput, supervise
    from eelbert_jax.training.writer import Writer

    fit_config, layout = make_fit_config(config, objective), objective.layout
    optimizer = make_optimizer(fit_config.optimizer, fit_config.durations.total_steps)
    compiled = make_train_step(objective, optimizer, layout, seed=0)
    start = fresh_state(objective, optimizer, layout, Start(""), seed=0)
    losses: list[Any] = []

    def train_step(state: Any, batch: Any) -> Any:
        state, metrics = compiled(state, objective.constants, batch)
        losses.append(metrics["loss"])
        return state, metrics

    def turn() -> dict[str, float]:
        losses.clear()
        state = jax.block_until_ready(jax.tree.map(jnp.copy, start))
        with (
            supervise(Goodput(), watchdog_seconds=0.0) as supervision,
            Writer(None, fit_config.durations.total_steps, None, tensorboard=False) as writer,
        ):
            began = clock()
            loop.run(
                state,
                config=fit_config.durations,
                train_step=train_step,
                next_batch=objective.next_batch,
                evaluate=lambda state: {},
                save=lambda state: None,
                stop=lambda: False,
                saved_step=None,
                learning_rate=lambda step: 0.0,
                writer=writer,
                supervision=supervision,
            )
            seconds = clock() - began
        num_examples = len(objective.data.train.encoded)
        check_learned(case, [float(loss[0]) for loss in losses], num_examples)
        return {"examples/s": num_examples / seconds}

    turn()  # compiles, once a length
    return turn


def our_run(case: str, options: argparse.Namespace) -> Turn:
    """Return a whole run of `eelbert finetune`, from the text to the score."""
    from eelbert_jax.jobs.finetune import finetune

    def turn() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            began = options.clock()
            result = finetune(our_config(case, options), folder)
            return {"s": options.clock() - began, "accuracy": result.metrics["accuracy"]}

    return turn


class Encoded(list):
    """A training set as Trainer takes one: a dictionary of lists an example."""


def encode(examples: Examples, options: argparse.Namespace, padded: bool) -> Encoded:
    """Return the examples as `run_glue` encodes them."""
    tokenizer = torch_tokenizer(options)
    padding = "max_length" if padded else False
    found = tokenizer(list(examples.first), padding=padding, max_length=MAX_LENGTH, truncation=True)
    assert examples.labels is not None
    return Encoded(
        {**{name: found[name][i] for name in found}, "label": int(label)}
        for i, label in enumerate(examples.labels)
    )


@functools.cache
def _tokenizer(vocabulary: str) -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocab=vocabulary, do_lower_case=True)


def torch_tokenizer(options: argparse.Namespace) -> Any:
    """Return transformers' tokenizer with the vocabulary."""
    return _tokenizer(options.vocabulary)


def trainer(options: argparse.Namespace, train: Encoded, dev: Encoded | None, folder: str) -> Any:
    """Return a Trainer as `run_glue` makes it."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    from eelbert_jax.model.config import sized

    torch.manual_seed(0)
    torch.set_num_threads(_measure.num_cores())
    ours = sized(options.size)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    model = BertForSequenceClassification(BertConfig(**{name: getattr(ours, name) for name in names}))
    arguments = TrainingArguments(
        folder,
        use_cpu=True,
        num_train_epochs=1,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        warmup_steps=len(train) // BATCH_SIZE // 10,
        logging_steps=4,
        save_strategy="no",
        disable_tqdm=True,
        report_to=[],
    )
    made = Trainer(
        model,
        arguments,
        train_dataset=train,
        eval_dataset=dev,
        processing_class=torch_tokenizer(options),
        compute_metrics=lambda found: {
            "accuracy": float(np.mean(np.argmax(found.predictions, -1) == found.label_ids))
        },
    )
    made.remove_callback(PrinterCallback)
    return made


def read(split: str, options: argparse.Namespace) -> Examples:
    """Return the examples of a split, for the baselines."""
    return load_examples(find_task("sst2"), split, glue_dir=options.glue)


def trainer_epoch(case: str, options: argparse.Namespace) -> Turn:
    """Return an epoch of Trainer, without evaluation and saving."""
    train = encode(read("train", options), options, case == "padded")
    folder = tempfile.mkdtemp(dir=options.glue)

    def turn(train: Encoded) -> dict[str, float]:
        trained = trainer(options, train, None, folder)
        began = options.clock()
        trained.train()
        seconds = options.clock() - began
        losses = [line["loss"] for line in trained.state.log_history if "loss" in line]
        check_learned(case, losses, len(train))
        return {"examples/s": len(train) / seconds}

    turn(Encoded(train[: 4 * BATCH_SIZE]))  # what is made once is made
    return lambda: turn(train)


def trainer_run(case: str, options: argparse.Namespace) -> Turn:
    """Return a whole run with Trainer, from the text to the score."""

    def turn() -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            began = options.clock()
            splits = [read(split, options) for split in ("train", "dev")]
            train, dev = (encode(examples, options, case == "padded") for examples in splits)
            trained = trainer(options, train, dev, folder)
            trained.train()
            accuracy = trained.evaluate()["eval_accuracy"]
            trained.save_model()
            return {"s": options.clock() - began, "accuracy": accuracy}

    return turn


def prepare(options: argparse.Namespace) -> Turn:
    """Return what the worker's case does in a turn."""
    if options.worker in OURS:
        if options.whole:
            return our_run(options.worker, options)
        from eelbert_jax.jobs.finetune import set_up

        config = our_config(options.worker, options)
        return our_epoch(config, set_up(config)[0], options.worker, options.clock)
    return (trainer_run if options.whole else trainer_epoch)(options.worker, options)


def measure(options: argparse.Namespace, cases: tuple[str, ...], unit: str) -> dict[str, float]:
    """Let the cases take turns and return the median of each, in `unit`."""
    passed = [f"--size={options.size}", f"--vocabulary={options.vocabulary}", f"--glue={options.glue}"]
    passed += ["--whole"] * options.whole + ["--cpu_time"] * options.cpu_time
    answers = _measure.take_turns(__file__, cases, passed, options.turns)
    return {case: statistics.median(found[unit] for found in taken) for case, taken in answers.items()}


def main() -> None:
    """Compare our fine-tuning with Trainer's."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--size", default="tiny", choices=("tiny", "uno", "mini"), help="encoder size")
    parser.add_argument("--examples", type=int, default=4096, help="examples of an epoch (default: 4096)")
    parser.add_argument("--turns", type=int, default=5, help="turns of every case (default: 5)")
    parser.add_argument("--whole", action="store_true", help="time whole runs, from the text to the score")
    parser.add_argument("--cpu_time", action="store_true", help="count processor time, on one core")
    parser.add_argument("--worker", choices=(*OURS, *BASELINES), help=argparse.SUPPRESS)
    parser.add_argument("--glue", help=argparse.SUPPRESS)
    parser.add_argument("--vocabulary", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clock = time.perf_counter
    if options.cpu_time:  # before the libraries ask how many cores there are
        options.clock = time.process_time
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if options.worker:
        _measure.serve(lambda: prepare(options))
        return
    data = _measure.data_folder("glue/SST-2 and vocab/vocab.txt")
    if options.quick:
        options.examples, options.turns = min(options.examples, 512), 2
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    unit = "s" if options.whole else "examples/s"
    with tempfile.TemporaryDirectory() as folder:
        write_sample(data / "glue", Path(folder), options.examples)
        options.glue, options.vocabulary = folder, str(data / "vocab" / "vocab.txt")
        figures = measure(options, (*OURS, *BASELINES), unit)
    what = "whole run" if options.whole else "epoch"
    setting = f"{options.size}, {what} of {options.examples} of SST-2, {_measure.num_cores()} threads"
    setting += ", processor time" * options.cpu_time
    for ours, baseline in [(ours, baseline) for baseline in BASELINES for ours in OURS] + [("hash", "table")]:
        case = f"{setting}: {ours} against {baseline}"
        _measure.report("finetune", case, figures[ours], figures[baseline], unit, options.json)


if __name__ == "__main__":
    main()
