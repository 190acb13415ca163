"""What `finetune` and `distill` give to `training.fit`: epochs as steps, and where a run starts."""

from typing import Any

import jax
import ml_collections
import numpy as np

from eelbert_jax.inference.predict import Model
from eelbert_jax.model.bert import hashed_start
from eelbert_jax.objectives.examples import OnExamples
from eelbert_jax.training import sharding
from eelbert_jax.training.fit import FitConfig, Start
from eelbert_jax.training.loop import LoopConfig
from eelbert_jax.training.optimizer import OptimizerConfig
from eelbert_jax.training.sharding import Layout

FREE_SETTINGS = (
    *("data.", "run.", "vocabulary", "log_every_steps", "max_skipped_steps", "on_degenerate", "tensorboard"),
    *("mesh.", "rows_per_device", "watchdog_seconds", "sweep."),
)
"""What may differ between the starts of a run."""


def check(config: ml_collections.ConfigDict) -> Layout:
    """Refuse what is out of range of a run before anything is read; return where its arrays lie."""
    layout = sharding.make_layout(config.mesh.fsdp, config.mesh.zero1)
    _fit_config(config, layout, steps_per_epoch=1, tokens_per_step=1)
    return layout


def make_fit_config(config: ml_collections.ConfigDict, objective: OnExamples) -> FitConfig:
    """Return what a run of `config` is besides its objective: epochs become steps."""
    tokens = config.batch_size * max(round(float(np.mean(objective.train.encoded.lengths))), 1)
    return _fit_config(config, objective.layout, objective.steps_per_epoch, tokens)


def _fit_config(
    config: ml_collections.ConfigDict, layout: Layout, steps_per_epoch: int, tokens_per_step: int
) -> FitConfig:
    total_steps = steps_per_epoch * config.num_epochs
    between = max(steps_per_epoch // max(config.evals_per_epoch, 1), 1)
    durations = LoopConfig(
        total_steps=total_steps,
        steps_per_call=1,
        log_every_steps=config.log_every_steps,
        eval_every_steps=between,
        checkpoint_every_steps=between,
        tokens_per_step=tokens_per_step,
        max_skipped_steps=config.max_skipped_steps,
    )
    opt = config.opt.to_dict()
    warmup_steps = round(opt.pop("warmup_percent") / 100 * total_steps)
    return FitConfig(
        durations,
        OptimizerConfig(warmup_steps=warmup_steps, **opt),
        seed=config.seed,
        passes=sharding.num_passes(config.batch_size, config.rows_per_device, layout),
        tensorboard=config.tensorboard,
        patience=config.patience_evals,
        free_settings=FREE_SETTINGS,
        refuses_changes=True,
    )


def encoder_start(
    config: ml_collections.ConfigDict, objective: OnExamples, pretrained: Model | None
) -> Start:
    """Return where a run without a checkpoint of its own starts: a fine-tuned model, an encoder, or scratch.

    What the checkpoint does not have is new, as a pooler; what the model does not have is left out.
    """
    if pretrained is None:
        text = "Starting from scratch: no checkpoint in the workdir, none named."
        return Start(text, lambda like: hashed_start(objective.config, objective.vocabulary))

    def encoder(like: Any) -> Any:
        heads = ("projection", *(() if pretrained.task is None else ("classifier",)))
        found = {
            name: pretrained.params[name] for name in heads if name in pretrained.params and name in like
        }
        parts = pretrained.params["bert"].items()
        return {"bert": {name: part for name, part in parts if name in like["bert"]}, **found}

    what = "encoder" if pretrained.task is None else "model"
    like = jax.eval_shape(objective.init, jax.eval_shape(lambda: jax.random.key(0)))
    whole: Any = jax.tree.structure(like)
    is_whole = whole == jax.tree.structure(encoder(like))
    return Start(f"Starting from the {what} of {config.pretrained}.", encoder, is_candidate=is_whole)
