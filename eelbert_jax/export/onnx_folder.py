"""Write a model as the folder that onnxruntime's users and transformers.js know, each graph checked.

config.json  tokenizer.json  tokenizer_config.json  vocab.txt
onnx/model.onnx  model_fp16.onnx  model_quantized.onnx          token ids in, the hash inside
onnx/model_vectors.onnx ...  onnx/word_vectors.onnx             the hash apart: what model.py runs
model.py                                                        answers, with onnxruntime alone
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx

from eelbert_jax.compress.quantize import WEIGHTS
from eelbert_jax.datasets.encoding import Encoded
from eelbert_jax.datasets.tasks import MULTILABEL, TAG
from eelbert_jax.errors import UserError
from eelbert_jax.export.check import check_word_vectors, compare, session
from eelbert_jax.export.encoder import model_graph, word_vector_graph
from eelbert_jax.export.expected import Difference
from eelbert_jax.export.sentences import SENTENCES
from eelbert_jax.export.settings import write_settings
from eelbert_jax.inference.labels import Label
from eelbert_jax.inference.predict import Model
from eelbert_jax.workdir import ANSWERING_NAME, ONNX_NAME, write_whole

ENDINGS = dict(zip(WEIGHTS, ("", "_fp16", "_quantized"), strict=True))
"""Of names of graphs, by how weights are kept; as transformers.js asks for them."""
WORD_VECTORS = "word_vectors.onnx"


class Written(NamedTuple):
    """Hold a graph of the folder: its file, how it keeps weights, and how far from the model it answers."""

    file: str
    weights: str
    num_bytes: int
    difference: Difference

    @property
    def is_right(self) -> bool:
        """Whether it is within its tolerance, and so was kept."""
        return self.difference.largest <= self.difference.limit(self.weights)


def write_onnx_folder(
    folder: Path,
    model: Model,
    inputs: Sequence[str],
    encoded: Encoded,
    kept: Sequence[str] = WEIGHTS,
) -> list[Written]:
    """Write the folder and return a record a graph; graphs whose rounded weights are too coarse are removed.

    `kept` are the `WEIGHTS` to write, float32 among them.

    Raises:
      UserError: a graph of float32, or model.py, answers otherwise than the model; the caller removes it all.
    """
    (folder / ONNX_NAME).mkdir(parents=True, exist_ok=True)
    write_settings(folder, model)
    records = []
    for form in inputs:
        middle = "" if form == "ids" else f"_{form}"
        for weights in kept:
            path = folder / ONNX_NAME / f"model{middle}{ENDINGS[weights]}.onnx"
            records.append(_write_graph(path, model, form, weights, encoded))
    if "vectors" in inputs:
        path = folder / ONNX_NAME / WORD_VECTORS
        _write(path, word_vector_graph(model))
        if not check_word_vectors(model, session(path)):
            raise _wrong(path, "its vectors are not those of the hash")
    if {"ids", "vectors"} & set(inputs):
        source = resources.files("eelbert_jax.export.outside").joinpath(ANSWERING_NAME)
        write_whole(folder / ANSWERING_NAME, source.read_bytes())
        _check_answers(folder / ANSWERING_NAME, model)
    return records


def _write_graph(path: Path, model: Model, form: str, weights: str, encoded: Encoded) -> Written:
    _write(path, model_graph(model, form, weights))
    found = compare(model, encoded, session(path), form)
    record = Written(f"{ONNX_NAME}/{path.name}", weights, path.stat().st_size, found)
    if not record.is_right:
        if weights == "float32":
            limit = f"{found.limit(weights):g}"
            raise _wrong(path, f"its {found.output} differ by {found.largest:.1e}, more than {limit}")
        path.unlink()
    return record


def _write(path: Path, graph: onnx.ModelProto) -> None:
    write_whole(path, graph.SerializeToString())


def _check_answers(path: Path, model: Model) -> None:
    """Ask model.py in a process of its own, without this package, and compare its answers."""
    texts = list(SENTENCES)
    expected = _answers(model, texts)
    asked = subprocess.run(
        [sys.executable, "-I", str(path), *texts], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise _wrong(path, f"it ends with {asked.stderr.strip().splitlines()[-1:]}")
    found = [json.loads(line) for line in asked.stdout.splitlines()]
    if not _equal(found, expected):
        raise _wrong(path, f"it answers {str(found)[:200]}, expected {str(expected)[:200]}")


def _answers(model: Model, texts: list[str]) -> Any:
    if model.task is None:
        return model.encode(texts)
    if model.task.kind == TAG:
        return [[tag.tag for tag in sentence] for sentence in model.tag(texts)]
    pairs = (texts[::2], texts[1::2]) if model.task.reads_pairs else (texts,)
    answers: Sequence[Any] = model.classify(*pairs)
    if model.task.kind == MULTILABEL:
        return [[list(pair) for pair in answer.probabilities.items()] for answer in answers]
    return [
        [answer.label, answer.probability] if isinstance(answer, Label) else answer.score
        for answer in answers
    ]


def _equal(found: Any, expected: Any) -> bool:
    """Return whether answers are the same, numbers to 1e-5."""
    if isinstance(expected, str | None):
        return found == expected
    if isinstance(expected, float | np.floating):
        return bool(abs(found - expected) <= 1e-5 * max(1.0, abs(float(expected))))
    return len(found) == len(expected) and all(map(_equal, found, expected))


def _wrong(path: Path, why: str) -> UserError:
    return UserError(f"{path.name} is wrong and was removed: {why}. Try another version of onnxruntime.")
