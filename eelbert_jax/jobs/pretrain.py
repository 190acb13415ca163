"""`eelbert pretrain`: rows and a config in, checkpoints and a record of the losses out."""

import contextlib
from pathlib import Path

import jax
import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.corpus.rows import Rows, row_indices
from eelbert_jax.errors import Preempted, UserError
from eelbert_jax.model import bert
from eelbert_jax.model.config import identity
from eelbert_jax.objectives.batches import show_batch
from eelbert_jax.objectives.trainer import Trainer, make_trainer
from eelbert_jax.training import distributed, loop, sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.environment import environment
from eelbert_jax.training.goodput import Goodput
from eelbert_jax.training.sharding import Layout
from eelbert_jax.training.state import TrainState
from eelbert_jax.training.supervision import Supervision, supervise
from eelbert_jax.training.writer import Writer, read_metrics
from eelbert_jax.vocabulary import save_vocabulary
from eelbert_jax.workdir import CHECKPOINTS_NAME, METRICS_NAME, VOCABULARY_NAME, changed_settings, locked

FREE_SETTINGS = (
    *("recipe", "init_params_from", "data.", "run.", "model.vocab_size", "model.embedding_mode"),
    *(
        "log_every_steps",
        "eval_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "keep_every_steps",
    ),
    *("watchdog_seconds", "max_skipped_steps", "tensorboard"),
    *("mesh.", "rows_per_device", "steps_per_call"),
)
"""What may differ between the starts of a run without being worth a word."""

STEPS_PER_CALL = {"cpu": 1}
"""Optimizer steps a call by backend where the config leaves it open; 10 elsewhere."""


def _durations(config: ml_collections.ConfigDict, row_length: int) -> loop.LoopConfig:
    return loop.LoopConfig(
        **{name: config[name] for name in (*loop.DURATIONS, "max_skipped_steps")},
        steps_per_call=config.steps_per_call or STEPS_PER_CALL.get(jax.default_backend(), 10),
        tokens_per_step=config.batch_size * row_length,
    )


def _open_rows(config: ml_collections.ConfigDict) -> tuple[Rows, Rows]:
    """Open the training and the held-out rows."""
    if config.data.rows is None:
        raise UserError(
            "No rows to train on: set --config.data.rows=DIR to a folder made by `eelbert prepare`."
        )
    splits = Rows.open(config.data.rows, "train"), Rows.open(config.data.rows, "heldout")
    if config.data.verify and jax.process_index() == 0:  # the others wait where checkpoints are agreed on
        for rows in splits:
            rows.verify()
    return splits


def _training_rows(config: ml_collections.ConfigDict, rows: Rows, steps_per_call: int, layout: Layout):
    """Return step -> the device rows [K, B, L] of the K steps that follow it, a pure function."""

    def next_rows(step: int) -> jax.Array:
        indices = np.stack(
            [row_indices(config.seed, step + k, config.batch_size, len(rows)) for k in range(steps_per_call)]
        )
        shape = (*indices.shape, rows.row_length)

        def read(index: tuple[slice, ...]) -> np.ndarray:
            wanted = indices[index[:2]]
            return rows[wanted.ravel()].reshape(*wanted.shape, -1)

        return sharding.global_array(read, shape, layout.rows(row_axis=1))

    return next_rows


def _evaluation(config: ml_collections.ConfigDict, rows: Rows, trainer: Trainer, constants, beat):
    """Return state -> held-out figures over all rows, or the first `data.eval_rows`."""
    num_rows = min(len(rows), config.data.eval_rows or len(rows))

    def put(values: np.ndarray) -> jax.Array:
        return sharding.global_array(
            lambda index: values[index], values.shape, trainer.layout.rows(row_axis=0)
        )

    def evaluate(state: TrainState) -> dict[str, float]:
        def eval_batch(indices: np.ndarray, weights: np.ndarray):
            placed = put(rows[indices]), put(indices.astype(np.int32)), put(weights)
            return trainer.eval_step(state.params, constants, *placed)

        return loop.evaluate_rows(num_rows, config.data.eval_batch_size, eval_batch, beat)

    return evaluate


def _start(config, workdir: Path, checkpoints: Checkpoints, trainer: Trainer, meant) -> TrainState:
    """Return the state to start from: own workdir > parameters of a named run > scratch; say which."""
    like = trainer.state_like()
    if checkpoints.latest_step() is not None:
        state = checkpoints.restore(like, meant)
        _say(f"Resuming from step {int(state.step)} of {workdir}.")
        return state
    placed = jax.tree.map(lambda leaf: leaf.sharding, like)
    state = jax.jit(trainer.init, out_shardings=placed)(jax.random.key(config.seed))
    if config.init_params_from is None:
        _say("Starting from scratch: no checkpoint in the workdir, none named.")
        return state
    with Checkpoints(Path(config.init_params_from).expanduser() / CHECKPOINTS_NAME, create=False) as named:
        params = named.restore_params(like.params, meant)
    _say(f"Starting from the parameters of {config.init_params_from}, step 0.")
    return state.replace(params=params)


def _check_settings(config: ml_collections.ConfigDict, workdir: Path, saved_step: int | None) -> None:
    """Say what is set otherwise than when the run was begun; refuse where there is nothing left to train."""
    changed = changed_settings(config.to_dict(), workdir, FREE_SETTINGS) if saved_step is not None else []
    if changed and saved_step == config.total_steps:
        raise UserError(
            f"The run in {workdir} is finished, and was trained otherwise: {'; '.join(changed)}. Take "
            "another --workdir for these settings, or a higher --config.total_steps to train on with them."
        )
    if changed:
        _say(f"From here on with other settings than before: {'; '.join(changed)}.")


def _say(text: str) -> None:
    """Print once a run, whatever the number of its processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuse values out of range, by their full names; what `BertConfig` and others check is left to them."""
    for name in ("batch_size", "data.eval_batch_size", "keep_checkpoints", "mesh.fsdp"):
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
      NonFiniteLoss: too many losses or gradients in a row, or a parameter, are NaN or infinite.
      Preempted: the machine asked for the end; the step reached is saved.
    """
    workdir = Path(workdir).expanduser()
    check(config)
    with (
        supervise(Goodput(), config.watchdog_seconds) as supervision,
        locked(workdir) if jax.process_index() == 0 else contextlib.nullcontext(),
    ):
        return _pretrain(config, workdir, *_open_rows(config), supervision)


def _pretrain(
    config: ml_collections.ConfigDict,
    workdir: Path,
    train_rows: Rows,
    eval_rows: Rows,
    supervision: Supervision,
) -> dict[str, float]:
    """Do the work of `pretrain` in a workdir that is this run's alone."""
    vocabulary = train_rows.vocabulary
    layout = Layout(sharding.make_mesh(config.mesh.fsdp), config.mesh.zero1)
    durations = _durations(config, train_rows.row_length)
    trainer = make_trainer(config, vocabulary, train_rows.row_length, layout)
    meant = identity(trainer.model_config, vocabulary, train_rows.lowercase)
    constants = jax.device_put(bert.constants(trainer.model_config, vocabulary), layout.replicated)
    with Checkpoints(
        workdir / CHECKPOINTS_NAME, keep=config.keep_checkpoints, keep_every_steps=config.keep_every_steps
    ) as checkpoints:
        supervision.watchdog.beat()  # not before: all wait while process 0 copies and verifies rows
        saved_step = checkpoints.latest_step()
        state = _start(config, workdir, checkpoints, trainer, meant)
        ours = workdir if jax.process_index() == 0 else None
        if ours is not None:  # only now: a refused start leaves what the folder holds as it is
            _check_settings(config, workdir, saved_step)
            run = {**environment(), "identity": meant, "row_length": train_rows.row_length}
            record = ml_collections.ConfigDict({**config.to_dict(), "run": run})
            cli.write_config(record, workdir)
            save_vocabulary(vocabulary, workdir / VOCABULARY_NAME)
        goodput = supervision.goodput
        goodput.resume(read_metrics(workdir / METRICS_NAME), saved_step)
        with Writer(ours, config.total_steps, saved_step, tensorboard=config.tensorboard) as writer:

            def finish() -> None:
                with goodput.during("checkpoint"):
                    checkpoints.wait()
                writer.note(goodput.summary())

            try:
                _, figures = loop.run(
                    state,
                    config=durations,
                    train_step=lambda state, rows: trainer.train_step(state, constants, rows),
                    next_rows=_training_rows(config, train_rows, durations.steps_per_call, layout),
                    evaluate=_evaluation(config, eval_rows, trainer, constants, supervision.watchdog.beat),
                    save=lambda state: checkpoints.save(state, meant),
                    saved_step=saved_step,
                    writer=writer,
                    supervision=supervision,
                )
            except Preempted:
                finish()
                raise
            finish()
    return figures


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("pretrain", argv)
    if invocation.flags["show_batch"]:
        print(show_batch(invocation.config, invocation.flags["show_batch"]))
        return
    with distributed.joined(**{name: invocation.flags[name] for name, *_ in cli.DISTRIBUTED_FLAGS}):
        pretrain(invocation.config, invocation.workdir)
