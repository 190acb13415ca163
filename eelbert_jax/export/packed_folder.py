"""Write a model as one file of int8 weights, and hold what is read from it against the model."""

import functools
from pathlib import Path

from eelbert_jax.datasets.encoding import Encoded
from eelbert_jax.errors import UserError
from eelbert_jax.export.expected import difference, outputs
from eelbert_jax.inference.predict import Model
from eelbert_jax.interchange.packed import read_packed, write_packed
from eelbert_jax.workdir import PACKED_NAME


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
    read_again = model.with_params(read_packed(folder).params)
    found = difference(model, encoded, functools.partial(outputs, read_again))
    if not found.largest <= found.limit("int8"):
        raise UserError(
            f"int8 weights change the {found.output} by {found.largest:.1e}, more than "
            f"{found.limit('int8'):g}."
        )
    return f"{PACKED_NAME}: {num_bytes / 1e6:.3f} MB, outputs within {found.largest:.1e}"
