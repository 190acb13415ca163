"""Run an exported graph in onnxruntime, on real texts, beside the model that it was made of."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from eelbert_jax.compress.quantize import TOLERANCES
from eelbert_jax.datasets.encoding import Encoded
from eelbert_jax.errors import UserError
from eelbert_jax.export.expected import Difference, difference, vectors_of
from eelbert_jax.hashing.reference import code_points, reference_signatures
from eelbert_jax.hashing.spec import random_signatures
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.embeddings import hash_of

Feed = Callable[[np.ndarray], dict[str, np.ndarray]]


def session(path: str | Path | bytes) -> onnxruntime.InferenceSession:
    """Load a graph; a damaged file, or a runtime too old for it, is a `UserError`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no base class of their own
        name = path if isinstance(path, str | Path) else "A graph"
        raise UserError(
            f"{name} is not read by onnxruntime {onnxruntime.__version__} ({error}): export it again, or "
            "take onnxruntime 1.18 or newer."
        ) from error


def compare(model: Model, encoded: Encoded, graph: onnxruntime.InferenceSession, inputs: str) -> Difference:
    """Return how far the outputs of a graph, which reads `inputs`, are from the model's, on all rows."""
    feed, names = _feed(model, inputs), [output.name for output in graph.get_outputs()]

    def ask(ids: np.ndarray, mask: np.ndarray, types: np.ndarray) -> dict[str, np.ndarray]:
        masks = {"attention_mask": mask.astype(np.int64), "token_type_ids": types.astype(np.int64)}
        return dict(zip(names, graph.run(names, {**feed(ids), **masks}), strict=True))

    return difference(model, encoded, ask)


def check_word_vectors(model: Model, graph: onnxruntime.InferenceSession) -> bool:
    """Return whether a graph gives every token's hash: its bits, or near it where it is projected."""
    table = vectors_of(model)
    parts = np.array_split(np.arange(len(table)), max(1, len(table) // 2048))
    found = np.concatenate([graph.run(None, {"input_ids": part})[0] for part in parts])
    if model.config.hash_width is None:
        return np.array_equal(found.view(np.int32), table.view(np.int32))
    return bool((np.abs(found - table) <= TOLERANCES["float32"] * max(1.0, np.abs(table).max())).all())


def _feed(model: Model, inputs: str) -> Feed:
    """Return what turns ids [B, L] into a graph's inputs, as its host would."""
    if inputs == "ids":
        return lambda ids: {"input_ids": ids.astype(np.int64)}
    if inputs == "vectors":
        table = vectors_of(model)
        return lambda ids: {"input_ids": ids.astype(np.int64), "word_vectors": table}
    spec = hash_of(model.config)
    if model.config.embedding == "random_hash":
        signatures, counts = random_signatures(model.config.hash, model.config.vocab_size)
    else:
        signatures, counts = reference_signatures(spec, *code_points(model.vocabulary.tokens))
    kept = signatures.view(np.int32) if spec.bucket_size == 2**32 else signatures.astype(np.int64)
    return lambda ids: {"signatures": kept[ids], "counts": counts[ids].astype(np.int64)}
