"""`eelbert pretrain`: rows and a config in, checkpoints and a record of the losses out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections

from eelbert_jax import cli, store
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.errors import UserError
from eelbert_jax.model.bert import hashed_start
from eelbert_jax.model.config import bert_config, identity
from eelbert_jax.objectives.masked_lm import MaskedLM, default_rows_a_pass
from eelbert_jax.training import distributed, sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.fit import FitConfig, Start, environment, fit, run_in
from eelbert_jax.training.loop import DURATIONS, LoopConfig
from eelbert_jax.training.optimizer import OptimizerConfig
from eelbert_jax.training.sharding import Layout
from eelbert_jax.vocabulary import Vocabulary
from eelbert_jax.workdir import CHECKPOINTS_NAME

FREE_SETTINGS = (
    *("recipe", "init_params_from", "data.", "run.", "model.vocab_size", "model.embedding_mode"),
    *("log_every_steps", "eval_every_steps", "checkpoint_every_steps", "keep_checkpoints"),
    *("keep_every_steps", "watchdog_seconds", "max_skipped_steps", "tensorboard"),
    *("mesh.", "rows_per_device", "steps_per_call", "sweep."),
)
"""What may differ between the starts of a run without being worth a word."""

STEPS_PER_CALL = {"cpu": 1}
"""Optimizer steps a call by platform where the config leaves it open; 10 elsewhere."""


CALLS_AHEAD = {"cpu": 0}
"""Calls read ahead by platform where the config leaves it open; 2 elsewhere. A CPU has no core to spare."""


def make_objective(
    config: ml_collections.ConfigDict,
    vocabulary: Vocabulary,
    row_length: int,
    layout: Layout,
    train_rows: Rows | None = None,
    heldout_rows: Rows | None = None,
) -> MaskedLM:
    """Return what a config learns on the devices of `layout`, which need not be here, even without rows."""
    check(config)
    platform = layout.mesh.devices.flat[0].platform
    return MaskedLM(
        bert_config(config.model, vocabulary.size),
        vocabulary,
        row_length,
        layout,
        batch_size=config.batch_size,
        steps_per_call=config.steps_per_call or STEPS_PER_CALL.get(platform, 10),
        mlm_probability=config.mlm_probability,
        seed=config.seed,
        train_rows=train_rows,
        heldout_rows=heldout_rows,
        eval_batch_size=config.data.eval_batch_size,
        num_eval_rows=config.data.eval_rows,
    )


def make_fit_config(config: ml_collections.ConfigDict, objective: MaskedLM) -> FitConfig:
    """Return what a run of `config` is besides its objective."""
    durations = LoopConfig(
        **{name: config[name] for name in (*DURATIONS, "max_skipped_steps")},
        steps_per_call=objective.steps_per_call,
        tokens_per_step=objective.batch_size * objective.row_length,
    )
    devices = objective.layout.mesh.devices
    platform = devices.flat[0].platform
    rows, ahead = config.rows_per_device, config.data.calls_ahead
    if rows is None:
        rows = default_rows_a_pass(config.batch_size // devices.size, objective.row_length, platform)
    return FitConfig(
        durations,
        OptimizerConfig(**config.opt),
        seed=config.seed,
        passes=sharding.num_passes(config.batch_size, rows, objective.layout),
        calls_ahead=CALLS_AHEAD.get(platform, 2) if ahead is None else ahead,
        keep_checkpoints=config.keep_checkpoints,
        keep_every_steps=config.keep_every_steps,
        tensorboard=config.tensorboard,
        free_settings=FREE_SETTINGS,
    )


def _open_rows(config: ml_collections.ConfigDict) -> tuple[Rows, Rows]:
    if config.data.rows is None:
        raise UserError(
            "No rows to train on: set --config.data.rows=DIR to a folder made by `eelbert prepare`."
        )
    return Rows.open(config.data.rows, "train"), Rows.open(config.data.rows, "heldout")


def _start(config: ml_collections.ConfigDict, objective: MaskedLM, model_identity: dict[str, Any]) -> Start:
    if config.init_params_from is None:
        text = "Starting from scratch: no checkpoint in the workdir, none named."
        return Start(text, lambda like: hashed_start(objective.config, objective.vocabulary))

    def named(like: Any) -> Any:
        folder = store.folder(config.init_params_from) / CHECKPOINTS_NAME
        model = {name: like[name] for name in ("bert", "cls")}
        with Checkpoints(folder, create=False) as checkpoints:
            return checkpoints.restore_params(model, model_identity)

    return Start(f"Starting from the parameters of {config.init_params_from}, step 0.", named)


def check(config: ml_collections.ConfigDict) -> None:
    """Refuse values out of range by their full names; `BertConfig` and others check the rest."""
    for name in ("batch_size", "data.eval_batch_size", "keep_checkpoints", "mesh.fsdp"):
        _check_positive(config, name)
    for name in ("rows_per_device", "steps_per_call", "data.eval_rows", "keep_every_steps"):
        _check_positive(config, name, optional=True)
    if config.data.calls_ahead is not None and config.data.calls_ahead < 0:
        raise UserError(f"config.data.calls_ahead must not be negative, got {config.data.calls_ahead}.")
    if not 0.0 < config.mlm_probability <= 1.0:
        raise UserError(f"config.mlm_probability must lie in (0, 1], got {config.mlm_probability}.")


def _check_positive(config: ml_collections.ConfigDict, name: str, *, optional: bool = False) -> None:
    value = config
    for part in name.split("."):
        value = value[part]
    if not (optional and value is None) and value < 1:
        raise UserError(f"config.{name} must be at least 1{' or empty' if optional else ''}, got {value}.")


def pretrain(
    config: ml_collections.ConfigDict,
    workdir: str | Path,
    extended: Callable[[MaskedLM], MaskedLM] = lambda objective: objective,
    job: str = "pretrain",
) -> dict[str, float]:
    """Train as `config` says, resuming what the workdir holds.

    `extended` returns an objective that learns more than masked tokens; the workdir is that of `job`.

    Returns:
      `heldout_loss` (nats a target), `heldout_accuracy` and `heldout_perplexity` of the last evaluation, and
      what else the objective evaluates.

    Raises:
      UserError: the rows or the config do not fit; else as `fit`.
    """
    workdir = store.folder(workdir)
    check(config)
    with run_in(workdir, job, config.watchdog_seconds) as supervision:
        train_rows, heldout_rows = _open_rows(config)
        vocabulary = train_rows.vocabulary
        layout = sharding.make_layout(config.mesh.fsdp, config.mesh.zero1)
        objective = extended(
            make_objective(config, vocabulary, train_rows.row_length, layout, train_rows, heldout_rows)
        )
        fit_config = make_fit_config(config, objective)
        if config.data.verify and jax.process_index() == 0:  # the others wait where checkpoints are agreed on
            train_rows.verify()
            heldout_rows.verify()
        model_identity = identity(objective.config, vocabulary, train_rows.lowercase)
        run = {**environment(), "identity": model_identity, "row_length": train_rows.row_length}
        return fit(
            objective,
            fit_config,
            layout,
            workdir,
            start=_start(config, objective, model_identity),
            identity=model_identity,
            record={**config.to_dict(), "run": run},
            vocabulary=vocabulary,
            supervision=supervision,
        ).figures


def show_batch(config: ml_collections.ConfigDict, update: int) -> str:
    """Return the batch of an update as text: for each row its index and what the model was shown."""
    if config.data.rows is None:
        raise UserError("No rows to show: set --config.data.rows=DIR to the folder that the run trained on.")
    if not 1 <= update <= config.total_steps:
        raise UserError(
            f"Update {update} is not one of this run's; they go from 1 to total_steps={config.total_steps}."
        )
    rows = Rows.open(config.data.rows, "train")
    layout = sharding.make_layout(devices=jax.local_devices()[:1])
    indices, ids = make_objective(config, rows.vocabulary, rows.row_length, layout, rows).masked_batch(update)
    return "\n".join(f"{index}\t{text}" for index, text in zip(indices, rows.decode(ids), strict=True))


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("pretrain", argv)
    if invocation.flags["show_batch"]:
        print(show_batch(invocation.config, invocation.flags["show_batch"]))
        return
    with distributed.joined(**cli.distributed_flags(invocation)):
        pretrain(invocation.config, invocation.workdir)
