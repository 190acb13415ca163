"""Show the batch of an update: what training saw at a step that went wrong, without a model."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from eelbert_jax.corpus import masking
from eelbert_jax.corpus.rows import Rows, row_indices
from eelbert_jax.errors import UserError
from eelbert_jax.training.state import named_key


def masked_batch(config: ml_collections.ConfigDict, rows: Rows, update: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (row indices int64 [B], masked ids [B, L]) of an update, bit for bit what the step trained on.

    Args:
      config: of `configs/pretrain.py`, as the run had it.
      rows: the training split.
      update: 1 for the first.

    Raises:
      UserError: there is no such update in the run.
    """
    if not 1 <= update <= config.total_steps:
        raise UserError(
            f"Update {update} is not one of this run's; they go from 1 to total_steps={config.total_steps}."
        )
    indices = row_indices(config.seed, update - 1, config.batch_size, len(rows))
    vocabulary = rows.vocabulary
    masked = masking.mask_rows(
        jnp.asarray(rows[indices], jnp.int32),
        jax.random.fold_in(named_key(config.seed, "mask"), update - 1),
        num_masked=masking.num_masked(rows.row_length, config.mlm_probability),
        mask_id=vocabulary.mask_id,
        vocab_size=vocabulary.size,
        special_ids=vocabulary.special_ids,
    )
    return indices, np.asarray(masked.input_ids)


def show_batch(config: ml_collections.ConfigDict, update: int) -> str:
    """Return the batch of `update` as text: a line a row, its index first, then what the model was shown.

    Raises:
      UserError: there are no rows, or no such update.
    """
    if config.data.rows is None:
        raise UserError("No rows to show: set --config.data.rows=DIR to the folder that the run trained on.")
    rows = Rows.open(config.data.rows, "train")
    indices, ids = masked_batch(config, rows, update)
    return "\n".join(f"{index}\t{text}" for index, text in zip(indices, rows.decode(ids), strict=True))
