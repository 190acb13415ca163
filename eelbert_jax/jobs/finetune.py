"""`eelbert finetune`: a checkpoint and a task in, a fine-tuned model and its scores out."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from eelbert_jax.data import encoding
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import command_line
from eelbert_jax.jobs.models import (
    CHECKPOINTS_NAME,
    VOCABULARY_NAME,
    Pretrained,
    bert_config,
    environment,
    identity,
    load_pretrained,
)
from eelbert_jax.jobs.sizes import count_parameters
from eelbert_jax.jobs.task_data import (
    Data,
    Split,
    decide,
    load_data,
    majority_scores,
    make_batch,
    predict,
    put,
)
from eelbert_jax.model import bert
from eelbert_jax.model.config import SIZES, BertConfig
from eelbert_jax.reporting.models import size_of
from eelbert_jax.training import finetuning, loop, metrics, sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.goodput import Goodput
from eelbert_jax.training.optimizer import OptimizerConfig, make_optimizer
from eelbert_jax.training.state import TrainState, initializer
from eelbert_jax.training.supervision import supervise
from eelbert_jax.training.writer import METRICS_NAME, Writer, read_metrics
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary, save_vocabulary

BEST_NAME = "best"
RESULT_NAME = "result.json"


class Degenerate(UserError):
    """The model predicts one class for every example, and the config says to stop then."""


def starting_model(config: ml_collections.ConfigDict) -> tuple[BertConfig, Vocabulary, Pretrained | None]:
    """Return the model to fine-tune, its vocabulary, and the checkpoint it starts from, if any.

    The recipe names the size of our own checkpoints, which have a published one; an imported model's sizes
    are its folder's, whatever the recipe says.

    Raises:
      UserError: a checkpoint of ours is of another size, or a model from scratch has no vocabulary.
    """
    if config.pretrained is None:
        if config.vocabulary is None:
            raise UserError(
                "A model from scratch needs a vocabulary: set --config.vocabulary=FILE; or start from a "
                "checkpoint with --config.pretrained=DIR."
            )
        vocabulary = load_vocabulary(config.vocabulary)
        return bert_config(config.model, vocabulary.size), vocabulary, None
    pretrained = load_pretrained(config.pretrained, needs_head=False)
    wanted = SIZES[config.size]
    found = {name: getattr(pretrained.config, name) for name in wanted}
    if found != wanted and not pretrained.is_imported:
        raise UserError(
            f"{config.pretrained} is of another size than {config.size!r}: {found}, wanted {wanted}; "
            "put it into the recipe."
        )
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dtype")
    changes = {name: config.model[name] for name in names}
    return dataclasses.replace(pretrained.config, **changes), pretrained.vocabulary, pretrained


def model_name(config: BertConfig, size: str | None, scratch: bool) -> str:
    """Return the name that tables use: BERT-tiny, EELBERT-mini, UNO-EELBERT, ... (scratch).

    A model of no published size is called by its layers and width: BERT-L6-H384.
    """
    size = size or f"L{config.num_hidden_layers}-H{config.hidden_size}"
    if config.embedding != "ngram_hash":
        name = f"BERT-{size}" + ("" if config.embedding == "table" else f" ({config.embedding})")
    else:
        name = "UNO-EELBERT" if size == "uno" else f"EELBERT-{size}"
    return name + (" (scratch)" if scratch else "")


def _initial_params(model: nn.Module, pretrained: Pretrained | None) -> Callable[[jax.Array], Any]:
    """Return key -> parameters: the checkpoint's encoder, a new head, and a pooler where it has none."""

    def init(key: jax.Array):
        params = dict(model.init(key, jnp.zeros((1, 1), jnp.int32))["params"])
        if pretrained is not None:
            params["bert"] = {**params["bert"], **pretrained.params["bert"]}
        return params

    return init


class Evaluation:
    """Evaluate on the development splits and remember the best step.

    The best step so far is read back from `metrics.jsonl`, so that a resumed run keeps it.

    Args:
      data: the task.
      logits_of: (parameters, encoded examples) -> logits.
      records: of the steps that an earlier part of the run recorded.
      on_degenerate: "say" or "stop".
    """

    def __init__(
        self,
        data: Data,
        logits_of: Callable[[Any, Split], np.ndarray],
        records: list[dict],
        on_degenerate: str,
    ) -> None:
        if on_degenerate not in ("say", "stop"):
            raise UserError(f"on_degenerate={on_degenerate!r} is not one of say, stop.")
        self._data = data
        self._logits_of = logits_of
        self._on_degenerate = on_degenerate
        self.selecting = f"dev_{data.task.metrics[0]}"
        self.degenerate = False
        self.best: dict[str, float] | None = None
        for record in records:
            if self.selecting in record:
                self._remember(record)

    def _remember(self, record: dict[str, float]) -> None:
        if record["step"] == 0:
            return  # untrained, and no candidate
        if self.best is None or record[self.selecting] > self.best[self.selecting]:
            self.best = record

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return the figures of this step as dev_METRIC, those of a second split as dev_METRIC_mismatched."""
        figures: dict[str, float] = {}
        self.degenerate = False
        for number, (name_of_split, split) in enumerate(self._data.dev.items()):
            predictions = decide(self._logits_of(state.params, split), self._data.task)
            suffix = "" if number == 0 else "_" + name_of_split.removeprefix("dev_")
            for name in self._data.task.metrics:
                figures[f"dev_{name}{suffix}"] = metrics.METRICS[name](predictions, split.labels)
            self.degenerate |= not self._data.task.is_regression and metrics.degenerate(predictions)
        step = int(state.step)
        if self.degenerate and step:
            text = f"step {step}: every development example gets the same class; nothing is learned yet."
            if self._on_degenerate == "stop":
                raise Degenerate(text + " Lower the rate, train longer, or set config.on_degenerate=say.")
            print(text, flush=True)
        self._remember({"step": step, **figures})
        return figures


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
    drawn: dict[int, list[encoding.Batch]] = {}

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
      UserError: the checkpoint, the data or the config do not fit.
    """
    workdir, started = Path(workdir), time.monotonic()
    command_line.write_config(config, workdir)
    model_config, vocabulary, pretrained = starting_model(config)
    lowercase = config.lowercase if pretrained is None else pretrained.lowercase
    data = load_data(config, vocabulary, lowercase)
    task = data.task
    model_config = dataclasses.replace(model_config, num_labels=task.num_labels)
    model = bert.BertForSequenceClassification(model_config)
    save_vocabulary(vocabulary, workdir / VOCABULARY_NAME)
    mesh = sharding.make_mesh()
    sharding.check_divisible("batch_size", config.batch_size, mesh)
    sharded = sharding.Layout(mesh).replicated
    durations = _durations(config, data.train.encoded)
    optimizer = make_optimizer(_optimizer_config(config, durations.total_steps), durations.total_steps)
    constants = jax.device_put(bert.constants(model_config, vocabulary), sharded)
    train_step = finetuning.make_train_step(model, optimizer, regression=task.is_regression, seed=config.seed)
    predict_step = finetuning.make_predict_step(model, sharded)

    def logits_of(params, split: Split) -> np.ndarray:
        return predict(
            lambda batch: predict_step(params, constants, put(batch, mesh)), split, config.batch_size
        )

    def fresh() -> TrainState:
        init = initializer(_initial_params(model, pretrained), optimizer)
        return jax.jit(init, out_shardings=sharded)(jax.random.key(config.seed))

    meant = {
        **identity(model_config, vocabulary, lowercase),
        "task": {"name": task.name, "labels": list(task.labels)},
    }
    with (
        Checkpoints(workdir / CHECKPOINTS_NAME) as checkpoints,
        Checkpoints(workdir / BEST_NAME) as best_checkpoints,
    ):
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharded),
            jax.eval_shape(fresh),
        )
        saved_step = checkpoints.latest_step()
        state = fresh() if saved_step is None else checkpoints.restore(like, meant)
        ours = workdir if jax.process_index() == 0 else None
        records = read_metrics(workdir / METRICS_NAME) if saved_step is not None else []
        goodput = Goodput(started, records, saved_step)
        with (
            supervise(goodput, config.watchdog_seconds) as supervision,
            Writer(ours, durations.total_steps, saved_step, tensorboard=config.tensorboard) as writer,
        ):
            evaluation = Evaluation(data, logits_of, records, config.on_degenerate)

            def save(state: TrainState) -> None:
                if evaluation.best is not None and evaluation.best["step"] == int(state.step):
                    best_checkpoints.save(state, meant)
                    best_checkpoints.wait()  # a run that resumes from this step finds its best one
                checkpoints.save(state, meant)

            state, figures = loop.run(
                state,
                config=durations,
                train_step=lambda state, batch: train_step(state, constants, batch),
                next_rows=_training_batches(config, data.train, mesh),
                evaluate=evaluation,
                save=save,
                saved_step=saved_step,
                writer=writer,
                supervision=supervision,
            )
    result = _result(config, data, model_config, pretrained, evaluation, figures, durations)
    result["seconds"] = round(time.monotonic() - started, 1)
    if jax.process_index() == 0:
        (workdir / RESULT_NAME).write_text(json.dumps(result, indent=2) + "\n")
    return result


def _result(config, data: Data, model_config, pretrained, evaluation, figures, durations) -> dict[str, Any]:
    """Return what `result.json` says besides the time."""
    task, first_dev = data.task, next(iter(data.dev))
    plain = lambda values: {k.removeprefix("dev_"): v for k, v in values.items() if k.startswith("dev_")}  # noqa: E731
    where = environment()
    splits = {"train": data.train, **data.dev}
    imported = pretrained is not None and pretrained.is_imported
    size = size_of(dataclasses.asdict(model_config)) if imported else config.size
    return {
        "task": task.name,
        "official": task.official,
        "split": first_dev,
        "model": {
            "name": model_name(model_config, size, pretrained is None),
            "size": size,
            "embedding": model_config.embedding,
            "parameters": count_parameters(model_config)["2-class"],
        },
        "pretrained": None
        if pretrained is None
        else {"workdir": str(config.pretrained), "step": pretrained.step},
        "seed": config.seed,
        "learning_rate": config.opt.learning_rate,
        "batch_size": config.batch_size,
        "num_epochs": config.num_epochs,
        "selection": f"best dev step by {task.metrics[0]}",
        "best_step": evaluation.best["step"],
        "total_steps": durations.total_steps,
        "metrics": plain(evaluation.best),
        "final_metrics": plain(figures),
        "degenerate": evaluation.degenerate,
        "majority": majority_scores(data),
        "num_examples": {name: len(split.encoded) for name, split in splits.items()},
        "truncated": sum(split.encoded.num_truncated for split in splits.values()),
        "hardware": ", ".join(sorted(set(where["devices"]))),
        "commit": where["commit"],
    }


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = command_line.parse("finetune", argv)
    result = finetune(invocation.config, invocation.workdir)
    scores = "  ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items())
    print(f"{result['model']['name']} on {result['task']}: {scores} ({result['selection']})")
