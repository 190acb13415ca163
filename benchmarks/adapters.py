"""What does adapter tuning save, against training all of a MiniALBERT?

    python benchmarks/adapters.py [--size=minialbert] [--length=32] [--turns=5] [--quick] [--json]

A step of `eelbert finetune` on 32 rows (two classes, float32, AdamW), with all parameters trained and with
`--config.opt.trainable='adapter|classifier'`; both take turns in one process. Counted are the processor's
seconds of a step, which can be compared on a machine with other work on it, and the bytes of the parameters
and the optimizer's slots. Weights and rows are random, which changes no speed.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import _measure
from eelbert_jax.config_files import load_config
from eelbert_jax.datasets.encoding import encoded_rows
from eelbert_jax.datasets.splits import Split, TaskData
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.model.config import bert_config
from eelbert_jax.objectives.classify import Classify
from eelbert_jax.training.fit import Start, fresh_state
from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer, trained
from eelbert_jax.training.sharding import Layout, make_mesh
from eelbert_jax.training.step import make_train_step
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

ROWS = 32
CASES = {"all": "", "adapters": "adapter|classifier"}


def make_objective(size: str, length: int) -> Classify:
    """Return a fine-tuning on rows of random words, all of one length."""
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *(f"word{i}" for i in range(30517))))
    config = load_config(f"configs/glue.py:{size},task=sst2")
    random = np.random.default_rng(0)
    ids = random.integers(len(SPECIAL_TOKENS), vocabulary.size, (ROWS, length)).astype(np.int32)
    split = Split(encoded_rows(list(ids), length, vocabulary.pad_id), random.integers(2, size=ROWS))
    data = TaskData(find_task("sst2"), split, {"dev": split})
    return Classify(
        bert_config(config.model, vocabulary.size),
        vocabulary,
        Layout(make_mesh(1)),
        split,
        batch_size=ROWS,
        seed=0,
        data=data,
        record=data.record(length),
    )


def make_step(objective: Classify, trainable: str) -> tuple[Callable[[], None], int]:
    """Return a call that takes a step and waits for it, and the bytes of the state that it updates."""
    options = OptimizerConfig(warmup_steps=0, trainable=trainable)
    optimizer = make_optimizer(options, total_steps=10**6)
    mask = functools.partial(trained, options) if trainable else None
    step = make_train_step(objective, optimizer, objective.layout, seed=0, trained=mask)
    held: dict[str, Any] = {"state": fresh_state(objective, optimizer, objective.layout, Start(""), seed=0)}
    batch = objective.next_batch(0)

    def call() -> None:
        held["state"], metrics = step(held["state"], objective.constants, batch)
        jax.block_until_ready((held["state"], metrics))

    return call, sum(leaf.nbytes for leaf in jax.tree.leaves(held["state"]))


def main() -> None:
    """Compare the two steps."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--size", default="minialbert", help="a size with adapters (default: minialbert)")
    parser.add_argument("--length", type=int, default=32, help="tokens a row (default: 32)")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each (default: 5)")
    options = parser.parse_args()
    if options.quick:
        options.turns = 1
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    objective = make_objective(options.size, options.length)
    steps = {name: make_step(objective, trainable) for name, trainable in CASES.items()}
    calls = {name: call for name, (call, _) in steps.items()}
    seconds = _measure.interleaved(calls, options.turns, warmup=1, clock=time.process_time)
    title = f"{options.size}, {ROWS} x {options.length}: adapters against all parameters"
    _measure.report("adapters", title + ", processor", seconds["adapters"], seconds["all"], "s", options.json)
    kept = {name: size / 1e6 for name, (_, size) in steps.items()}
    _measure.report(
        "adapters",
        title + ", parameters and slots",
        kept["adapters"],
        kept["all"],
        "MB in memory",
        options.json,
    )


if __name__ == "__main__":
    main()
