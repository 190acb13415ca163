"""`eelbert finetune`: a checkpoint and a task in, a fine-tuned model and its scores out.

Leaves what it starts from to `starting`, the task to `task_data` and `token_data`, scores to `evaluation` and
the record to `results`.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from eelbert_jax import cli
from eelbert_jax.datasets import encoding
from eelbert_jax.errors import Preempted, UserError
from eelbert_jax.inference.predict import Model
from eelbert_jax.model import bert
from eelbert_jax.model.config import identity
from eelbert_jax.objectives import classify as finetuning
from eelbert_jax.objectives.evaluation import Evaluation
from eelbert_jax.objectives.examples import Split, make_batch, put
from eelbert_jax.objectives.results import model_record, result
from eelbert_jax.objectives.starting import initial_params, starting_model
from eelbert_jax.objectives.task_data import Data, load_data
from eelbert_jax.training import loop, sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.goodput import Goodput
from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from eelbert_jax.training.state import TrainState, initializer
from eelbert_jax.training.supervision import Supervision, supervise
from eelbert_jax.training.writer import Writer, read_metrics
from eelbert_jax.vocabulary import Vocabulary, save_vocabulary
from eelbert_jax.workdir import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    METRICS_NAME,
    RESULT_NAME,
    VOCABULARY_NAME,
    changed_settings,
    locked,
    write_whole,
)

FREE_SETTINGS = (
    "data.",
    "vocabulary",
    "log_every_steps",
    "max_skipped_steps",
    "on_degenerate",
    "tensorboard",
)
"""What may differ between the starts of a run."""


class Setup(NamedTuple):
    """All that a fine-tuning is made of before its first step.

    Attributes:
      data: the task.
      pretrained: where it starts; None: from scratch.
      vocabulary: of the model.
      model: what the record says of the model.
      identity: what a checkpoint of it is of.
      durations: when to do what.
      sharding: of parameters and optimizer slots.
      fresh: () -> the state at step 0.
      train_step: (state, batch) -> (state, metrics of [1]); donates the state.
      next_batch: step -> device batch, a function of (seed, step).
      answer: (parameters, split) -> what `data.scores` takes.
    """

    data: Data
    pretrained: Model | None
    vocabulary: Vocabulary
    model: dict[str, Any]
    identity: dict[str, Any]
    durations: loop.LoopConfig
    sharding: NamedSharding
    fresh: Callable[[], TrainState]
    train_step: Callable[[TrainState, finetuning.Batch], tuple[TrainState, dict[str, jax.Array]]]
    next_batch: Callable[[int], finetuning.Batch]
    answer: Callable[[Any, Split], Any]


def set_up(config: ml_collections.ConfigDict) -> Setup:
    """Read the checkpoint and the task that `config` names and make the steps.

    Raises:
      UserError: the checkpoint, the data or the config do not fit.
    """
    model_config, vocabulary, pretrained = starting_model(config)
    lowercase = config.lowercase if pretrained is None else pretrained.lowercase
    data = load_data(config, vocabulary, lowercase)
    task = data.task
    model_config = dataclasses.replace(model_config, num_labels=task.num_labels)
    model = data.model_class(model_config)
    mesh = sharding.make_mesh()
    sharding.check_divisible("batch_size", config.batch_size, mesh)
    sharded = sharding.Layout(mesh).replicated
    durations = _durations(config, data.train.encoded)
    optimizer = make_optimizer(_optimizer_config(config, durations.total_steps), durations.total_steps)
    constants = jax.device_put(bert.constants(model_config, vocabulary), sharded)
    train_step = finetuning.make_train_step(model, optimizer, regression=task.is_regression, seed=config.seed)
    predict_step = finetuning.make_predict_step(model, sharded)
    init = initializer(initial_params(model, pretrained), optimizer)

    def answer(params: Any, split: Split) -> Any:
        return data.answer(
            lambda batch: predict_step(params, constants, put(batch, mesh)), split, config.batch_size
        )

    return Setup(
        data=data,
        pretrained=pretrained,
        vocabulary=vocabulary,
        model=model_record(config, model_config, pretrained),
        identity={
            **identity(model_config, vocabulary, lowercase),
            "task": {"name": task.name, "labels": list(task.labels)},
        },
        durations=durations,
        sharding=sharded,
        fresh=lambda: jax.jit(init, out_shardings=sharded)(jax.random.key(config.seed)),
        train_step=lambda state, batch: train_step(state, constants, batch),
        next_batch=_training_batches(config, data.train, mesh),
        answer=answer,
    )


def _durations(config: ml_collections.ConfigDict, train: encoding.Encoded) -> loop.LoopConfig:
    """Return when to evaluate, save and log, from epochs to steps."""
    per_epoch = len(encoding.eval_batches(train, config.batch_size))
    between = max(per_epoch // max(config.evals_per_epoch, 1), 1)
    return loop.LoopConfig(
        total_steps=per_epoch * config.num_epochs,
        steps_per_call=1,
        log_every_steps=config.log_every_steps,
        eval_every_steps=between,
        checkpoint_every_steps=between,
        tokens_per_step=config.batch_size * max(round(float(np.mean(train.lengths))), 1),
        max_skipped_steps=config.max_skipped_steps,
    )


def _optimizer_config(config: ml_collections.ConfigDict, total_steps: int) -> OptimizerConfig:
    fields = config.opt.to_dict()
    warmup_steps = round(fields.pop("warmup_percent") / 100 * total_steps)
    return OptimizerConfig(warmup_steps=warmup_steps, **fields)


def _training_batches(
    config: ml_collections.ConfigDict, train: Split, mesh: Mesh
) -> Callable[[int], finetuning.Batch]:
    """Return step -> device batch, a function of (seed, step); an epoch is drawn when it begins."""
    per_epoch = len(encoding.eval_batches(train.encoded, config.batch_size))
    drawn: dict[int, list[encoding.BatchIndices]] = {}

    def next_batch(step: int) -> finetuning.Batch:
        epoch, index = divmod(step, per_epoch)
        if epoch not in drawn:
            drawn.clear()
            drawn[epoch] = encoding.train_batches(train.encoded, config.batch_size, config.seed, epoch)
        return put(make_batch(train, drawn[epoch][index]), mesh)

    return next_batch


def finetune(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Fine-tune as `config` says, resuming what the workdir holds; write and return `result.json`.

    Args:
      config: of `configs/glue.py`.
      workdir: receives `config.json`, `metrics.jsonl`, `checkpoints/` (to resume), `best/` (the best step on
        the development set), `vocab.txt` and `result.json`.

    Raises:
      UserError: the checkpoint, the data or the config do not fit, or another process works in the workdir.
      Preempted: the machine asked for the end; the step reached is saved.
    """
    workdir = Path(workdir)
    with supervise(Goodput(), watchdog_seconds=0) as supervision, locked(workdir):
        setup = set_up(config)
        evaluation, figures = _train(setup, workdir, config, supervision)
        record = result(
            config,
            setup.data,
            setup.model,
            setup.pretrained,
            evaluation,
            figures,
            setup.durations.total_steps,
        )
        record["seconds"] = supervision.goodput.total()
        write_whole(workdir / RESULT_NAME, json.dumps(record, indent=2) + "\n")
    return record


def _train(
    setup: Setup, workdir: Path, config: ml_collections.ConfigDict, supervision: Supervision
) -> tuple[Evaluation, dict[str, float]]:
    """Train to the end, saving in `workdir`, and return what knows the best step, and the last figures."""
    with (
        Checkpoints(workdir / CHECKPOINTS_NAME) as checkpoints,
        Checkpoints(workdir / BEST_NAME) as best_checkpoints,
    ):
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=setup.sharding),
            jax.eval_shape(setup.fresh),
        )
        saved_step = checkpoints.latest_step()
        state = setup.fresh() if saved_step is None else checkpoints.restore(like, setup.identity)
        if saved_step is not None:
            _check_settings(config, workdir)
            print(f"Resuming from step {saved_step} of {workdir}.", flush=True)
        # Only now: a refused start leaves what the folder holds as it is.
        cli.write_config(config, workdir)
        save_vocabulary(setup.vocabulary, workdir / VOCABULARY_NAME)
        total_steps = setup.durations.total_steps
        records = read_metrics(workdir / METRICS_NAME)
        supervision.goodput.resume(records, saved_step)
        kept = [record for record in records if saved_step is not None and record["step"] <= saved_step]
        with Writer(workdir, total_steps, saved_step, tensorboard=config.tensorboard) as writer:
            evaluation = Evaluation(setup.data, setup.answer, kept, config.on_degenerate)

            def save(state: TrainState) -> None:
                if evaluation.best is not None and evaluation.best["step"] == int(state.step):
                    best_checkpoints.save(state, setup.identity)
                    best_checkpoints.wait()  # a run that resumes from this step finds its best one
                checkpoints.save(state, setup.identity)

            try:
                _, figures = loop.run(
                    state,
                    config=setup.durations,
                    train_step=setup.train_step,
                    next_rows=setup.next_batch,
                    evaluate=evaluation,
                    save=save,
                    saved_step=saved_step,
                    writer=writer,
                    supervision=supervision,
                )
            except Preempted:
                checkpoints.wait()
                raise
            checkpoints.wait()
    return evaluation, figures


def _check_settings(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Refuse to go on with other settings than before: `result.json` tells of one set of them."""
    changed = changed_settings(config.to_dict(), workdir, FREE_SETTINGS)
    if changed:
        raise UserError(
            f"The run in {workdir} was begun with other settings: {'; '.join(changed)}. Take another "
            "--workdir for these."
        )


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("finetune", argv)
    record = finetune(invocation.config, invocation.workdir)
    scores = "  ".join(f"{name} {value:.4f}" for name, value in record["metrics"].items())
    print(f"{record['model']['name']} on {record['task']}: {scores} ({record['selection']})")
