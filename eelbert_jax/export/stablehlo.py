"""Write a model as StableHLO, of any batch and length: what JAX, TensorFlow and XLA's other hosts run.

model.stablehlo          the weights inside; reads ids, masks and types, and of an n-gram hash vectors too
word_vectors.stablehlo   that hash: code points of tokens in, their vectors out
config.json  tokenizer.json  tokenizer_config.json  vocab.txt (of WordPiece)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from eelbert_jax.compress.quantize import TOLERANCES
from eelbert_jax.datasets.encoding import Encoded
from eelbert_jax.errors import UserError
from eelbert_jax.export.expected import computed, difference, vectors_of
from eelbert_jax.export.settings import write_settings
from eelbert_jax.hashing.reference import code_points
from eelbert_jax.hashing.steps import embed_strings
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.bert import hash_projection
from eelbert_jax.model.embeddings import VECTORS, hash_of
from eelbert_jax.workdir import write_whole

MODEL, WORD_VECTORS = "model.stablehlo", "word_vectors.stablehlo"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo_folder(folder: Path, model: Model, encoded: Encoded) -> list[str]:
    """Write the folder, read it back, run it on `encoded`, and say what is there.

    Raises:
      UserError: a file answers otherwise than the model; the caller removes the folder.
    """
    write_settings(folder, model)
    notes = []
    if _reads_vectors(model):
        _write(folder / WORD_VECTORS, *_word_vectors(model))
        _check_vectors(folder / WORD_VECTORS, model)
        notes.append(f"{WORD_VECTORS}: {_megabytes(folder / WORD_VECTORS)}, the hash of all tokens")
    _write(folder / MODEL, *_model(model))
    found = difference(model, encoded, _asked(folder / MODEL, model))
    if not found.largest <= found.limit("float32"):
        raise _wrong(folder / MODEL, f"its {found.output} differ by {found.largest:.1e}")
    changed = f", {found.changed} of {found.answers} answers changed" if found.answers else ""
    notes.append(f"{MODEL}: {_megabytes(folder / MODEL)}, outputs within {found.largest:.1e}{changed}")
    return notes


def _reads_vectors(model: Model) -> bool:
    """Whether the hash is a program of its own; a table, or another hash's, stands in the model's."""
    return model.config.embedding == "ngram_hash" and hash_of(model.config).runs_on_the_fly


def _model(model: Model) -> tuple[Any, Sequence[Any]]:
    """Return a function of ids, masks and types, int32 [B, L], and vectors [V, E]; and its inputs' shapes."""
    config, forward = model.config, computed(model)

    def outputs(ids: jax.Array, mask: jax.Array, types: jax.Array, *vectors: jax.Array) -> Any:
        constants = model.constants
        for table in vectors:
            constants = {"bert": {"embeddings": {"word_embeddings": {VECTORS: table}}}}
        return forward(model.params, constants, ids, mask > 0, types)

    limit = f"length <= {config.num_positions}"
    extents = jax.export.symbolic_shape("batch, length", constraints=[limit])
    shapes: list[Any] = [jax.ShapeDtypeStruct(extents, jnp.int32)] * 3
    if _reads_vectors(model):
        shapes.append(jax.ShapeDtypeStruct((config.vocab_size, config.embedding_width), jnp.float32))
    return outputs, shapes


def _word_vectors(model: Model) -> tuple[Any, Sequence[Any]]:
    """Return a function of code points, uint32 [n, K], and lengths, int32 [n], to float32 [n, E]."""
    config = model.config
    projection = hash_projection(model.params)

    def vectors(characters: jax.Array, lengths: jax.Array) -> jax.Array:
        hashed = embed_strings(characters, lengths, hash_of(config), config.hash_vector_width)
        return hashed if projection is None else hashed @ projection

    (n,), (_, columns) = jax.export.symbolic_shape("n"), code_points(model.vocabulary.tokens)[0].shape
    return vectors, [jax.ShapeDtypeStruct((n, columns), jnp.uint32), jax.ShapeDtypeStruct((n,), jnp.int32)]


def _write(path: Path, function: Any, shapes: Sequence[Any]) -> None:
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*shapes)
    write_whole(path, bytes(exported.serialize()))


def _read(path: Path) -> Any:
    return jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)


def _asked(path: Path, model: Model) -> Any:
    """Return what asks a file as its host would."""
    program, vectors = _read(path), [vectors_of(model)] if _reads_vectors(model) else []

    def ask(*rows: np.ndarray) -> Mapping[str, np.ndarray]:
        return jax.device_get(program(*(np.asarray(part, np.int32) for part in rows), *vectors))

    return ask


def _check_vectors(path: Path, model: Model) -> None:
    """Fail where the vectors are not the hash's bits, or near them where they are projected."""
    found, expected = np.asarray(_read(path)(*code_points(model.vocabulary.tokens))), vectors_of(model)
    if model.config.hash_width is None:
        is_equal = np.array_equal(found.view(np.int32), expected.view(np.int32))
    else:
        scale = max(1.0, float(np.abs(expected).max()))
        is_equal = bool((np.abs(found - expected) <= TOLERANCES["float32"] * scale).all())
    if not is_equal:
        raise _wrong(path, "its vectors are not those of the hash")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.3f} MB"


def _wrong(path: Path, why: str) -> UserError:
    return UserError(f"{path.name} is wrong and was removed: {why}. Try another version of jax.")
