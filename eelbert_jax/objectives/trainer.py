"""From a pre-training config to its computation: model, steps, and where their arrays lie.

What `eelbert pretrain` runs and what `eelbert plan` compiles for devices that are not here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from eelbert_jax.corpus import masking
from eelbert_jax.corpus.rows import id_dtype
from eelbert_jax.errors import UserError
from eelbert_jax.model import bert, embeddings
from eelbert_jax.model.config import BertConfig, bert_config
from eelbert_jax.objectives import masked_lm
from eelbert_jax.training import sharding
from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from eelbert_jax.training.sharding import Layout
from eelbert_jax.training.state import TrainState, initializer
from eelbert_jax.vocabulary import Vocabulary


def initial_params(model: bert.BertForMaskedLM, config: BertConfig, vocabulary: Vocabulary, row_length: int):
    """Return key -> parameters, for `init_state`; a hash-initialized table starts from the hash's vectors."""
    ids = jnp.zeros((1, row_length), jnp.int32)
    table = embeddings.initial_table(config, vocabulary) if config.embedding == "hash_initialized" else None

    def init(key: jax.Array):
        params = model.init(key, ids)["params"]
        if table is not None:
            params["bert"]["embeddings"]["word_embeddings"]["embedding"] = jnp.asarray(table)
        return params

    return init


def _accumulation(config: ml_collections.ConfigDict, devices: int, row_length: int, platform: str) -> int:
    """Return the number of passes that a batch takes on these devices."""
    if config.rows_per_device is None:
        return masked_lm.default_accumulation(config.batch_size // devices, row_length, platform)
    rows = config.rows_per_device * devices
    if config.rows_per_device < 1 or config.batch_size % rows:
        raise UserError(
            f"batch_size={config.batch_size} is no multiple of rows_per_device={config.rows_per_device} x "
            f"{devices} devices; change one of them."
        )
    return config.batch_size // rows


class Trainer(NamedTuple):
    """The computation of a run: everything but its rows, its folder and its arrays.

    Attributes:
      model: the module.
      model_config: its sizes, with the vocabulary's.
      task: what the steps need to know besides the model.
      layout: where arrays lie.
      init: key -> the state at step 0.
      train_step: jitted (state, constants, rows [K, B, L]) -> (state, metrics of [K]).
      eval_step: jitted (params, constants, rows, row indices, row weights) -> sums.
    """

    model: bert.BertForMaskedLM
    model_config: BertConfig
    task: masked_lm.MaskedLMTask
    layout: Layout
    init: Callable[[jax.Array], TrainState]
    train_step: Callable
    eval_step: Callable

    def state_like(self) -> TrainState:
        """Return the shapes, types and shardings of a state."""
        shapes = jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))
        return _placed(shapes, self.layout.state(shapes))


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def make_trainer(
    config: ml_collections.ConfigDict, vocabulary: Vocabulary, row_length: int, layout: Layout
) -> Trainer:
    """Build the computation that `config` describes for the devices of `layout`, which need not be here.

    Raises:
      UserError: a value of the config does not fit the devices, the rows or another value.
    """
    devices = layout.mesh.devices
    sharding.check_divisible("batch_size", config.batch_size, layout.mesh)
    sharding.check_divisible("data.eval_batch_size", config.data.eval_batch_size, layout.mesh)
    model_config = bert_config(config.model, vocabulary.size)
    model = bert.BertForMaskedLM(model_config)
    platform = devices.flat[0].platform
    task = masked_lm.MaskedLMTask(
        num_masked=masking.num_masked(row_length, config.mlm_probability),
        mask_id=vocabulary.mask_id,
        vocab_size=vocabulary.size,
        special_ids=vocabulary.special_ids,
        accumulation=_accumulation(config, devices.size, row_length, platform),
        seed=config.seed,
        platform=platform,
    )
    optimizer = make_optimizer(OptimizerConfig(**config.opt), config.total_steps)
    return Trainer(
        model,
        model_config,
        task,
        layout,
        initializer(initial_params(model, model_config, vocabulary, row_length), optimizer),
        masked_lm.make_train_step(model, optimizer, task, layout),
        masked_lm.make_eval_step(model, task),
    )


def train_step_arguments(
    trainer: Trainer, config: ml_collections.ConfigDict, vocabulary: Vocabulary, row_length: int, steps: int
) -> tuple[Any, Any, jax.ShapeDtypeStruct]:
    """Return the shapes and shardings of the training step's arguments, to compile it without arrays.

    Args:
      trainer: of the same config, vocabulary and row length.
      config: of `configs/pretrain.py`.
      vocabulary: of the rows.
      row_length: L.
      steps: K, optimizer steps in a call.
    """
    layout = trainer.layout
    constants = jax.eval_shape(lambda: bert.constants(trainer.model_config, vocabulary))
    shape = (steps, config.batch_size, row_length)
    rows = jax.ShapeDtypeStruct(shape, id_dtype(vocabulary.size), sharding=layout.rows(row_axis=1))
    everywhere = jax.tree.map(lambda _: layout.replicated, constants)
    return trainer.state_like(), _placed(constants, everywhere), rows
