"""`eelbert pretrain`: rows and a config in, checkpoints and a record of the losses out."""

import contextlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from eelbert_jax.data import masking
from eelbert_jax.data.rows import Rows, row_indices
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import command_line
from eelbert_jax.jobs.models import (
    CHECKPOINTS_NAME,
    VOCABULARY_NAME,
    bert_config,
    environment,
    identity,
)
from eelbert_jax.model import bert, embeddings
from eelbert_jax.model.config import BertConfig
from eelbert_jax.training import loop, masked_lm, sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from eelbert_jax.training.state import TrainState, init_state
from eelbert_jax.training.writer import Writer
from eelbert_jax.vocabulary import Vocabulary, save_vocabulary
from eelbert_jax.workdir import locked

STEPS_PER_CALL = {"cpu": 1}
"""Optimizer steps a call by backend where the config leaves it open; 10 elsewhere."""


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


def _accumulation(config: ml_collections.ConfigDict, devices: int, row_length: int) -> int:
    """Return the number of passes that a batch takes on these devices."""
    if config.rows_per_device is None:
        return masked_lm.default_accumulation(config.batch_size // devices, row_length)
    rows = config.rows_per_device * devices
    if config.rows_per_device < 1 or config.batch_size % rows:
        raise UserError(
            f"batch_size={config.batch_size} is no multiple of rows_per_device={config.rows_per_device} x "
            f"{devices} devices; change one of them."
        )
    return config.batch_size // rows


def make_task(
    config: ml_collections.ConfigDict, vocabulary: Vocabulary, row_length: int
) -> masked_lm.MaskedLMTask:
    """Return what the training and evaluation steps need to know besides the model."""
    return masked_lm.MaskedLMTask(
        num_masked=masking.num_masked(row_length, config.mlm_probability),
        mask_id=vocabulary.mask_id,
        vocab_size=vocabulary.size,
        special_ids=vocabulary.special_ids,
        accumulation=_accumulation(config, jax.device_count(), row_length),
        seed=config.seed,
    )


def _durations(config: ml_collections.ConfigDict, row_length: int) -> loop.LoopConfig:
    names = ("total_steps", "log_every_steps", "eval_every_steps", "checkpoint_every_steps")
    return loop.LoopConfig(
        **{name: config[name] for name in names},
        steps_per_call=config.steps_per_call or STEPS_PER_CALL.get(jax.default_backend(), 10),
        tokens_per_step=config.batch_size * row_length,
    )


def _open_rows(config: ml_collections.ConfigDict) -> tuple[Rows, Rows]:
    """Open the training and the held-out rows."""
    if config.data.rows is None:
        raise UserError(
            "No rows to train on: set --config.data.rows=DIR to a folder made by `eelbert prepare`."
        )
    directory = Path(config.data.rows).expanduser()
    splits = Rows.open(directory, "train"), Rows.open(directory, "heldout")
    if config.data.verify:
        for rows in splits:
            rows.verify()
    return splits


def _training_rows(config: ml_collections.ConfigDict, rows: Rows, steps_per_call: int, mesh: Mesh):
    """Return step -> the device rows [K, B, L] of the K steps that follow it, a pure function."""

    def next_rows(step: int) -> jax.Array:
        indices = np.stack(
            [row_indices(config.seed, step + k, config.batch_size, len(rows)) for k in range(steps_per_call)]
        )
        shape = (*indices.shape, rows.row_length)

        def read(index: tuple[slice, ...]) -> np.ndarray:
            wanted = indices[index[:2]]
            return rows[wanted.ravel()].reshape(*wanted.shape, -1)

        return sharding.global_array(read, shape, sharding.rows_sharding(mesh, row_axis=1))

    return next_rows


def _evaluation(config: ml_collections.ConfigDict, rows: Rows, eval_step, mesh: Mesh):
    """Return parameters -> held-out figures over all rows, or the first `data.eval_rows`."""
    num_rows = min(len(rows), config.data.eval_rows or len(rows))

    def put(values: np.ndarray) -> jax.Array:
        over_rows = sharding.rows_sharding(mesh, row_axis=0)
        return sharding.global_array(lambda index: values[index], values.shape, over_rows)

    def evaluate(params) -> dict[str, float]:
        def eval_batch(indices: np.ndarray, weights: np.ndarray):
            return eval_step(params, put(rows[indices]), put(indices.astype(np.int32)), put(weights))

        return loop.evaluate_rows(num_rows, config.data.eval_batch_size, eval_batch)

    return evaluate


def _start(config, workdir: Path, checkpoints: Checkpoints, fresh, sharded, meant) -> TrainState:
    """Return the state to start from: own workdir > parameters of a named run > scratch; say which."""
    like = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharded), jax.eval_shape(fresh)
    )
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(like, meant)
        print(f"Resuming from step {int(state.step)} of {workdir}.", flush=True)
        return state
    if config.init_params_from is None:
        print("Starting from scratch: no checkpoint in the workdir, none named.", flush=True)
        return fresh()
    with Checkpoints(Path(config.init_params_from).expanduser() / CHECKPOINTS_NAME, create=False) as named:
        params = named.restore_params(like.params, meant)
    print(f"Starting from the parameters of {config.init_params_from}, step 0.", flush=True)
    return fresh().replace(params=params)


def _check(config: ml_collections.ConfigDict) -> None:
    """Refuse values out of range, by their full names; what `BertConfig` and others check is left to them."""
    for name in ("batch_size", "data.eval_batch_size", "keep_checkpoints"):
        _check_positive(config, name)
    for name in ("rows_per_device", "steps_per_call", "data.eval_rows", "keep_every_steps"):
        _check_positive(config, name, optional=True)
    if not 0.0 < config.mlm_probability <= 1.0:
        raise UserError(f"config.mlm_probability must lie in (0, 1], got {config.mlm_probability}.")


def _check_positive(config: ml_collections.ConfigDict, name: str, *, optional: bool = False) -> None:
    value = config
    for part in name.split("."):
        value = value[part]
    if not (optional and value is None) and value < 1:
        raise UserError(f"config.{name} must be at least 1{' or empty' if optional else ''}, got {value}.")


def pretrain(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Train as `config` says, resuming what the workdir holds, and return the last held-out figures.

    Args:
      config: of `configs/pretrain.py`.
      workdir: receives `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/` and `vocab.txt`.

    Returns:
      `heldout_loss` (nats a target), `heldout_accuracy`, `heldout_perplexity`.

    Raises:
      UserError: the rows, the config or the checkpoint do not fit, or another process works in the workdir.
      NonFiniteLoss: a loss, gradient or parameter is NaN or infinite.
    """
    workdir = Path(workdir).expanduser()
    _check(config)
    with locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
        return _pretrain(config, workdir, *_open_rows(config))


def _pretrain(
    config: ml_collections.ConfigDict, workdir: Path, train_rows: Rows, eval_rows: Rows
) -> dict[str, float]:
    """Do the work of `pretrain` in a workdir that is this run's alone."""
    vocabulary, row_length = train_rows.vocabulary, train_rows.row_length
    model_config = bert_config(config.model, vocabulary.size)
    model = bert.BertForMaskedLM(model_config)
    mesh = sharding.make_mesh()
    sharding.check_divisible("batch_size", config.batch_size, mesh)
    sharding.check_divisible("data.eval_batch_size", config.data.eval_batch_size, mesh)
    durations = _durations(config, row_length)
    task = make_task(config, vocabulary, row_length)
    optimizer = make_optimizer(OptimizerConfig(**config.opt), config.total_steps)
    meant = identity(model_config, vocabulary, train_rows.lowercase)

    sharded = sharding.replicated(mesh)
    constants = jax.device_put(bert.constants(model_config, vocabulary), sharded)
    init = initial_params(model, model_config, vocabulary, row_length)
    train_step = masked_lm.make_train_step(model, optimizer, task)
    eval_step = masked_lm.make_eval_step(model, task)
    evaluate = _evaluation(config, eval_rows, lambda params, *rows: eval_step(params, constants, *rows), mesh)
    with Checkpoints(
        workdir / CHECKPOINTS_NAME, keep=config.keep_checkpoints, keep_every_steps=config.keep_every_steps
    ) as checkpoints:
        saved_step = checkpoints.latest_step()
        state = _start(
            config,
            workdir,
            checkpoints,
            lambda: init_state(init, optimizer, jax.random.key(config.seed), sharded),
            sharded,
            meant,
        )
        ours = workdir if jax.process_index() == 0 else None
        if ours is not None:  # only now: a refused start leaves what the folder holds as it is
            run = {**environment(), "identity": meant, "row_length": row_length}
            record = ml_collections.ConfigDict({**config.to_dict(), "run": run})
            command_line.write_config(record, workdir)
            save_vocabulary(vocabulary, workdir / VOCABULARY_NAME)
        with Writer(ours, config.total_steps, saved_step, tensorboard=config.tensorboard) as writer:
            _, figures = loop.run(
                state,
                config=durations,
                train_step=lambda state, rows: train_step(state, constants, rows),
                next_rows=_training_rows(config, train_rows, durations.steps_per_call, mesh),
                evaluate=lambda state: evaluate(state.params),
                save=lambda state: checkpoints.save(state, meant),
                saved_step=saved_step,
                writer=writer,
            )
    return figures


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = command_line.parse("pretrain", argv)
    pretrain(invocation.config, invocation.workdir)
