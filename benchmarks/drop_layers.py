"""How much faster is BERT-base with fewer layers, fine-tuning and answering?

    python benchmarks/drop_layers.py [--examples=64] [--turns=3] [--quick] [--json]

A process for each number of dropped layers, of 12: none, 2, 4 and 6. They take turns; a turn is an epoch of
`eelbert finetune` (batches of 32 examples of SST-2, float32, AdamW), then the answers to as many examples, on
all cores. Weights are random and no layer is chosen: which ones are dropped changes no speed. The paper's
figures are of its own machine: fine-tuning 1.24, 1.48 and 1.94 times as fast, inference -17, -33 and -50 % of
the time. Source: Poor Man's BERT (arXiv 2004.03844).

Reads SST-2 and the vocabulary from the folder that EELBERT_DATA names.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from finetune import Turn, our_config, our_epoch, write_sample

import _measure

NUM_LAYERS = 12
NUM_DROPPED = ("0", "2", "4", "6")
UNITS = {"fine-tuning": "examples/s", "inference": "s"}


def prepare(options: argparse.Namespace) -> Turn:
    """Return a turn of the model without `options.worker` layers."""
    import jax

    from eelbert_jax.jobs.finetune import set_up

    config = our_config("table", options)
    config.model.num_hidden_layers = NUM_LAYERS - int(options.worker)
    objective, *_ = set_up(config)
    tune = our_epoch(config, objective, options.worker, time.perf_counter)
    params, split = objective.init(jax.random.key(0)), objective.data.dev["dev"]
    objective.score(params, split)  # compiles

    def turn() -> dict[str, float]:
        examples_per_second = tune()["examples/s"]
        began = time.perf_counter()
        objective.score(params, split)
        return {"fine-tuning": examples_per_second, "inference": time.perf_counter() - began}

    return turn


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Let the models take turns and return the medians of each, by what was timed."""
    passed = [f"--vocabulary={options.vocabulary}", f"--glue={options.glue}"]
    answers = _measure.take_turns(__file__, NUM_DROPPED, passed, options.turns)
    return {
        what: {case: statistics.median(answer[what] for answer in found) for case, found in answers.items()}
        for what in UNITS
    }


def main() -> None:
    """Compare the model that has all layers with those that lost some."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--examples", type=int, default=64, help="examples of an epoch (default: 64)")
    parser.add_argument("--turns", type=int, default=3, help="turns of every case (default: 3)")
    for name in ("worker", "glue", "vocabulary"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.size = "base"
    if options.worker:
        _measure.serve(lambda: prepare(options))
        return
    data = _measure.data_folder("glue/SST-2 and vocab/vocab.txt")
    if options.quick:
        options.examples, options.turns = 32, 1
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        write_sample(data / "glue", Path(folder), options.examples)
        development = Path(folder) / "SST-2" / "dev.tsv"
        lines = development.read_text(encoding="utf-8").split("\n")[: options.examples + 1]
        development.write_text("\n".join(lines) + "\n", encoding="utf-8")
        options.glue, options.vocabulary = folder, str(data / "vocab" / "vocab.txt")
        figures = measure(options)
    for what, medians in figures.items():
        for case in NUM_DROPPED[1:]:
            title = (
                f"base, {options.examples} of SST-2, {_measure.num_cores()} threads: {what} without {case}"
            )
            title += " layers against all 12"
            _measure.report("drop_layers", title, medians[case], medians["0"], UNITS[what], options.json)


if __name__ == "__main__":
    main()
