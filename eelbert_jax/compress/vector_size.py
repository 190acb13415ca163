"""Fewer entries in a sentence encoder's vectors, at nearly the same cosines."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from eelbert_jax.errors import UserError
from eelbert_jax.model.config import BertConfig


def shorten_vectors(
    config: BertConfig, params: Mapping[str, Any], size: int
) -> tuple[BertConfig, dict[str, Any]]:
    """Return a sentence encoder whose vectors are the `size` directions that its projection fills most.

    A projection of states of D entries, with its bias, fills no more than D + 1 of its S dimensions: that
    many keep every length and cosine, and D lose one direction, the least.

    Raises:
      UserError: the model has no projection, or `size` is not one of 1 to S.
    """
    if config.sentence_size is None or "projection" not in params:
        raise UserError("--vector_size is of sentence encoders made by `eelbert distill`; this is none.")
    if not 1 <= size <= config.sentence_size:
        raise UserError(f"--vector_size={size} has to be from 1 to the model's {config.sentence_size}.")
    kernel, bias = (np.asarray(params["projection"][name], np.float64) for name in ("kernel", "bias"))
    _, _, directions = np.linalg.svd(np.vstack([kernel, bias]), full_matrices=False)  # [D + 1, S], by weight
    kept = directions[:size].T
    projection = {"kernel": jnp.float32(kernel @ kept), "bias": jnp.float32(bias @ kept)}
    shorter = dataclasses.replace(config, sentence_size=kept.shape[1])
    return shorter, {**params, "projection": projection}
