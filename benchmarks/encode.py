"""How many sentences a second does a sentence encoder give vectors, here and elsewhere?

    python benchmarks/encode.py [--from=pocket,pocket-uno] [--texts=8192] [--turns=5] [--quick] [--json]

Every way goes from the same list of phrases of SST-2's training file to vectors, on one core that all share
in turn; counted is the processor's time, and loading and compiling come before. All have to give the same
vectors, int8 ones within 5e-2.

    encode                  `Model.encode`, in JAX
    onnxruntime, float32    `model.py` of the folder that `eelbert export --to=onnx` writes
    onnxruntime, int8       the same with its int8 weights
    transformers            the baseline: the folder of `--to=hf` in PyTorch, 32 texts of one length at a time

Reads SST-2 from the folder that EELBERT_DATA names.
"""

import argparse
import contextlib
import functools
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from predict import by_length, phrases

import _measure

BASELINE = "transformers"
TOLERANCE = {"onnxruntime, int8": 5e-2}
"""Of an entry of a vector, where it is not 1e-5."""
Encode = Callable[[Sequence[str]], np.ndarray]
"""Gives texts [n] vectors, float32 [n, S]."""


def ways(source: str, folder: Path) -> dict[str, Encode]:
    """Return what gives texts vectors, by name, of a model that is exported to `folder`."""
    from eelbert_jax.inference.load import load
    from eelbert_jax.jobs.export import export

    model = load(source)
    with contextlib.redirect_stdout(sys.stderr):
        export(source, folder, ("onnx", "hf"), ("vectors",))
    spec = importlib.util.spec_from_file_location("model", folder / "onnx" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    outside: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(outside)
    return {
        "encode": model.encode,
        "onnxruntime, float32": outside.Model().encode,
        "onnxruntime, int8": outside.Model(weights="quantized").encode,
        BASELINE: in_torch(folder / "hf", model.params["projection"]),
    }


def in_torch(folder: Path, projection: Any) -> Encode:
    """Return what encodes in PyTorch: the mean of the states of a BERT in `folder`, projected."""
    import torch
    from transformers import AutoModel, AutoTokenizer, logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()  # of a pooler that no vector reads
    tokenizer, model = (
        AutoTokenizer.from_pretrained(str(folder)),
        AutoModel.from_pretrained(str(folder)).eval(),
    )
    kernel, bias = (np.asarray(projection[name]) for name in ("kernel", "bias"))

    def means(batch: Any) -> np.ndarray:
        mask = batch["attention_mask"][:, :, None]
        return ((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)).numpy()

    return lambda texts: np.stack(by_length(tokenizer, means, texts, 32)) @ kernel + bias


def measure(source: str, options: argparse.Namespace) -> dict[str, float]:
    """Let the ways take turns and return the sentences a second of each."""
    texts = phrases(options.texts)
    with tempfile.TemporaryDirectory() as folder:
        found = ways(source, Path(folder))
        expected = found["encode"](texts)
        for name, encode in found.items():
            worst = float(np.abs(encode(texts) - expected).max())
            if not worst <= TOLERANCE.get(name, 1e-5):
                raise RuntimeError(f"{name} differs from encode by {worst:.1e}.")
        calls = {name: functools.partial(encode, texts) for name, encode in found.items()}
        seconds = _measure.interleaved(calls, options.turns, warmup=0, clock=time.process_time)
    return {name: len(texts) / taken for name, taken in seconds.items()}


def main() -> None:
    """Compare the ways, for each model."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--from", dest="models", default="pocket,pocket-uno", help="models, of sentences")
    parser.add_argument("--texts", type=int, default=8192, help="texts a turn (default: 8192)")
    parser.add_argument("--turns", type=int, default=5, help="turns of every way (default: 5)")
    options = parser.parse_args()
    if options.quick:
        options.models, options.texts, options.turns = "pocket-uno", 512, 1
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before the libraries ask for the cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    for source in options.models.split(","):
        figures = measure(source, options)
        for name, ours in figures.items():
            if name != BASELINE:
                case = (
                    f"{source}, {options.texts} phrases, one core's processor time: {name} against {BASELINE}"
                )
                _measure.report("encode", case, ours, figures[BASELINE], "texts/s", options.json)


if __name__ == "__main__":
    main()
