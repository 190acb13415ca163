"""Write a model as one file of int8 weights, and hold what is read from it against the model."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from eelbert_jax.compress.quantize import TOLERANCES
from eelbert_jax.datasets.encoding import Encoded
from eelbert_jax.errors import UserError
from eelbert_jax.export.expected import batches, outputs
from eelbert_jax.inference.predict import Model
from eelbert_jax.interchange.packed import read_packed, write_packed
from eelbert_jax.model import bert
from eelbert_jax.workdir import PACKED_NAME

BATCH_SIZE = 32


def write_packed_folder(folder: Path, model: Model, encoded: Encoded) -> str:
    """Write the folder and say what is there.

    Raises:
      UserError: int8 weights change an output by more than their tolerance; the caller removes the folder.
    """
    num_bytes = write_packed(
        folder,
        model.config,
        model.vocabulary,
        model.params,
        lowercase=model.lowercase,
        task=model.task,
        trained_length=model.trained_length,
    )
    largest = _difference(model, _read_again(folder, model), encoded)
    if not largest <= TOLERANCES["int8"]:
        raise UserError(
            f"int8 weights change an output by {largest:.1e}, more than {TOLERANCES['int8']:.0e}."
        )
    return f"{PACKED_NAME}: {num_bytes / 1e6:.3f} MB, outputs within {largest:.1e}"


def _read_again(folder: Path, model: Model) -> Model:
    found = read_packed(folder)
    constants = jax.device_put(bert.constants(found.config, found.vocabulary, found.params))
    return dataclasses.replace(model, params=found.params, constants=constants)


def _difference(model: Model, packed: Model, encoded: Encoded) -> float:
    """Return the largest difference of an output, relative to the largest one where that is beyond 1."""
    largest, scale = 0.0, 1.0
    for batch, rows in batches(encoded, BATCH_SIZE):
        real = batch.weights > 0
        expected, found = outputs(model, *rows), outputs(packed, *rows)
        name = next(name for name in ("sentence_embedding", "logits", "last_hidden_state") if name in found)
        largest = max(largest, float(np.abs(expected[name][real] - found[name][real]).max()))
        scale = max(scale, float(np.abs(expected[name][real]).max()))
    return largest / scale
