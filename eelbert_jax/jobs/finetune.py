"""`eelbert finetune`: a checkpoint and a task in, a fine-tuned model and its scores out."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from eelbert_jax import cli, store
from eelbert_jax.datasets.encoding import check_max_length
from eelbert_jax.datasets.splits import Split, TaskData, file_digests, load_data, with_unlabelled
from eelbert_jax.datasets.tasks import MULTILABEL, TAG, Task, TaskRecord, check_labels
from eelbert_jax.errors import UserError, warn_once
from eelbert_jax.inference.load import load, model_folder
from eelbert_jax.inference.predict import Model
from eelbert_jax.inference.teacher import taught
from eelbert_jax.interchange.architectures import ARCHITECTURES
from eelbert_jax.jobs.fitting import check, encoder_start, make_fit_config
from eelbert_jax.model.config import BertConfig, bert_config, identity, name_of, size_of
from eelbert_jax.objectives.classify import Classify, Scored, TeacherConfig
from eelbert_jax.objectives.multilabel import Multilabel
from eelbert_jax.objectives.tag import Tag
from eelbert_jax.record import Dropped, ModelRecord, Result
from eelbert_jax.reporting.pretraining import read_checkpoint
from eelbert_jax.subwords import Subwords
from eelbert_jax.training import distributed, sharding
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.fit import Outcome, environment, fit, run_in
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary
from eelbert_jax.workdir import (
    BEST_NAME,
    DETAILS_NAME,
    PREDICTIONS_NAME,
    make_writable,
    write_json,
    write_whole,
)


def starting_model(config: ml_collections.ConfigDict) -> tuple[BertConfig, Vocabulary, Model | None]:
    """Return the model to fine-tune, its vocabulary, and the checkpoint it starts from, if any.

    The recipe names the size of our own checkpoints that have a published one; others' sizes are their own,
    whatever the recipe says.

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
    pretrained = load(config.pretrained, encoder_only=True)
    if config.new_head:
        params = {name: part for name, part in pretrained.params.items() if name != "classifier"}
        pretrained = dataclasses.replace(pretrained, params=params, task=None)
    size = size_of(dataclasses.asdict(pretrained.config))
    if size not in (None, config.size) and not pretrained.is_imported:
        raise UserError(
            f"{config.pretrained} is of another size, {size!r}, than {config.size!r}; put it into the recipe."
        )
    if config.model.adapter_size is not None and pretrained.config.adapter_size is None:
        raise UserError(
            f"--config.model.adapter_size={config.model.adapter_size} asks for adapters, and "
            f"{config.pretrained} has none: take a recipe of another size than minialbert, or a checkpoint "
            "that has them."
        )
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dtype")
    changes = {name: config.model[name] for name in names}
    return dataclasses.replace(pretrained.config, **changes), pretrained.vocabulary, pretrained


def set_up(config: ml_collections.ConfigDict) -> tuple[Classify, Model | None, bool]:
    """Read the checkpoint and the task of a config: what to learn, where it starts, and whether in lowercase.

    Raises:
      UserError: the checkpoint, the data or the config do not fit.
    """
    layout = check(config)
    teacher = TeacherConfig(**config.teacher)
    if teacher.model is not None:
        model_folder(teacher.model)
    model_config, vocabulary, pretrained = starting_model(config)
    check_max_length(config.max_length, model_config.num_positions)
    _check_start(config, vocabulary, pretrained)
    lowercase = config.lowercase if pretrained is None else pretrained.lowercase
    data = load_data(config.to_dict(), vocabulary, lowercase)
    kind = {TAG: Tag, MULTILABEL: Multilabel}.get(data.task.kind, Classify)
    record = _record(config, data, pretrained)
    sentence_size = model_config.sentence_size if record.pair_encoder == "bi" else None
    if pretrained is not None:
        _warn_of_positions(config, data, pretrained.trained_length)
    objective = kind(
        dataclasses.replace(model_config, num_labels=data.task.num_labels, sentence_size=sentence_size),
        vocabulary,
        layout,
        data.train,
        batch_size=config.batch_size,
        seed=config.seed,
        data=data,
        record=record,
        on_degenerate=config.on_degenerate,
        balanced=config.balanced,
        teacher=teacher,
    )
    if teacher.model is not None:  # last: its answers take long
        objective = dataclasses.replace(objective, train=_taught(objective, lowercase))
    return objective, pretrained, lowercase


def _check_start(config: ml_collections.ConfigDict, vocabulary: Vocabulary, pretrained: Model | None) -> None:
    """Refuse a model that is asked for what it cannot do whatever the data."""
    before = None if pretrained is None else pretrained.task
    if before is None and not config.num_epochs:
        raise UserError(
            "num_epochs=0 only evaluates: name a fine-tuned model by --config.pretrained=DIR, or train."
        )
    if before is not None and config.pair_encoder != before.pair_encoder:
        raise UserError(
            f"{config.pretrained} was fine-tuned with pair_encoder={before.pair_encoder}, got "
            f"--config.pair_encoder={config.pair_encoder}."
        )
    if config.pair_encoder == "bi" and isinstance(vocabulary, Subwords):
        raise UserError(
            f"--config.pair_encoder=bi takes the texts of a pair apart at [SEP], and this model reads "
            f"{vocabulary.kind}: leave it at cross."
        )


def _record(config: ml_collections.ConfigDict, data: TaskData, pretrained: Model | None) -> TaskRecord:
    """Return what the model has to remember: of a fine-tuned one what it remembers already."""
    record = data.record(config.max_length, config.pair_encoder)
    if pretrained is None or pretrained.task is None:
        return record
    before = pretrained.task
    if record.kind != before.kind:
        raise UserError(
            f"{config.pretrained} was fine-tuned to {before.kind}, and {record.name} is a task to "
            f"{record.kind}; name a model of such a task, or leave its classifier: --config.new_head=True."
        )
    check_labels(record.labels, before.labels)
    return dataclasses.replace(record, mean=before.mean, std=before.std)


def _taught(objective: Classify, lowercase: bool) -> Split:
    """Return what to learn from, and further texts without labels, with the teacher's answers."""
    teacher, record, vocabulary = objective.teacher, objective.record, objective.vocabulary
    task, split = objective.data.task, objective.train
    if not isinstance(task, Task) or record.kind == MULTILABEL:
        raise UserError(
            f"A teacher gives a text one class or number, and this is a task to {record.kind}: leave "
            "--config.teacher.model out."
        )
    assert teacher.model is not None
    if teacher.texts is not None:
        noise = teacher.noise_percent, objective.seed
        split = with_unlabelled(split, task, teacher.texts, vocabulary, lowercase, *noise)
    return taught(split, teacher.model, record, vocabulary, lowercase, teacher.hidden_weight > 0.0)


def _warn_of_positions(config: ml_collections.ConfigDict, data: TaskData, trained_length: int | None) -> None:
    """Warn of positions that pre-training never saw, and say how many examples reach them."""
    if trained_length is None or config.max_length <= trained_length:
        return
    splits = {"train": data.train, **data.scored}.values()
    reaching = sum(int(np.sum(split.encoded.lengths > trained_length)) for split in splits)
    warn_once(
        f"max_length={config.max_length}, but {config.pretrained} was pre-trained on rows of {trained_length}"
        f" tokens: {reaching} examples reach positions that it has never seen. Set --config.max_length="
        f"{trained_length} to do without them."
    )


def finetune(config: ml_collections.ConfigDict, workdir: str | Path) -> Result:
    """Fine-tune as `config` says, resuming what the workdir holds; write and return `result.json`.

    Args:
      config: of `configs/glue.py`.
      workdir: receives what `fit` says, and `result.json`.

    Raises:
      UserError: the checkpoint, the data or the config do not fit; else as `fit`.
    """
    workdir = store.folder(workdir)
    with run_in(workdir, "finetune", config.watchdog_seconds) as supervision:
        objective, pretrained, lowercase = set_up(config)
        trained_length = None if pretrained is None else pretrained.trained_length
        model_identity = {
            **identity(objective.config, objective.vocabulary, lowercase),
            "task": objective.record.to_dict(),
        }
        outcome = fit(
            objective,
            make_fit_config(config, objective),
            objective.layout,
            workdir,
            start=encoder_start(config, objective, pretrained),
            identity=model_identity,
            record={**config.to_dict(), "run": {**environment(), "trained_length": trained_length}},
            vocabulary=objective.vocabulary,
            supervision=supervision,
        )
        scored = score_best(objective, workdir, model_identity)
        result = make_result(config, objective, pretrained, outcome, scored)
        if result.total_steps and not result.best_step and jax.process_index() == 0:
            print(
                "No step scored above the model that the run started from, which is the best one: lower "
                "--config.opt.learning_rate, or train longer."
            )
        if jax.process_index() == 0:
            write_predictions(scored, workdir)
            result.write(workdir)
    return result


def score_best(objective: Classify, workdir: Path, model_identity: Mapping[str, Any]) -> dict[str, Scored]:
    """Return by split what the saved best step predicts; a test split is scored here alone."""
    with Checkpoints(workdir / BEST_NAME, create=False) as checkpoints:
        shapes = jax.eval_shape(objective.init, jax.eval_shape(lambda: jax.random.key(0)))
        like = sharding.placed(shapes, objective.layout.params(shapes))
        params = checkpoints.restore_params(like, model_identity)
    return {name: objective.score(params, split) for name, split in objective.data.scored.items()}


def write_predictions(scored: Mapping[str, Scored], workdir: Path) -> None:
    """Write `predictions/SPLIT.jsonl`, an object an example in order, and `details.json`."""
    make_writable(workdir / PREDICTIONS_NAME)
    for split, found in scored.items():
        lines = [
            json.dumps({"label": label, "prediction": prediction}, ensure_ascii=False)
            for label, prediction in zip(found.labels, found.predictions, strict=True)
        ]
        write_whole(workdir / PREDICTIONS_NAME / f"{split}.jsonl", "\n".join([*lines, ""]))
    write_json(workdir / DETAILS_NAME, {split: found.details for split, found in scored.items()})


def model_record(model_config: BertConfig, pretrained: Model | None, parameters: int) -> ModelRecord:
    """Return what the model is, by the name that tables use: BERT-tiny, UNO-EELBERT (scratch).

    A model of no published size is called by its layers and width: BERT-L6-H384, Roberta-L12-H768.
    """
    size = size_of(dataclasses.asdict(model_config))
    name = name_of(model_config)
    if model_config.architecture != "bert":
        name = name.replace("BERT", ARCHITECTURES[model_config.architecture].class_prefix, 1)
    name += " (scratch)" if pretrained is None else ""
    return ModelRecord(name, size, model_config.embedding, parameters)


def make_result(
    config: ml_collections.ConfigDict,
    objective: Classify,
    pretrained: Model | None,
    outcome: Outcome,
    scored: Mapping[str, Scored],
) -> Result:
    """Return what `result.json` says of a finished run."""
    task, run = objective.data.task, environment()
    splits = {"train": objective.data.train, **objective.data.scored}
    assert outcome.best is not None
    start = dropped = None
    if pretrained is not None:
        start = read_checkpoint(str(config.pretrained), pretrained.step)
        dropped = Dropped.of(config.pretrained)
    if dropped is not None and config.num_epochs:
        dropped = dropped.tuned()
    return Result(
        task=task.name,
        official=task.official,
        split=next(iter(objective.data.dev)),
        model=model_record(objective.config, pretrained, objective.num_parameters),
        pretrained=start,
        seed=config.seed,
        learning_rate=config.opt.learning_rate,
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        selection=f"best dev step by {task.metrics[0]}",
        best_step=int(outcome.best["step"]),
        total_steps=objective.steps_per_epoch * config.num_epochs,
        metrics=_of_dev(outcome.best),
        final_metrics=_of_dev(outcome.figures),
        degenerate=bool(outcome.best.get("degenerate")),  # the model of `metrics`, not the last one
        majority=dict(objective.majority_scores()),
        num_examples={name: len(split.encoded) for name, split in splits.items()},
        truncated=sum(split.encoded.num_truncated for split in splits.values()),
        hardware=", ".join(sorted(set(run["devices"]))),
        commit=run["commit"],
        seconds=outcome.seconds,
        test_metrics=dict(scored["test"].scores) if "test" in scored else {},
        data=file_digests(config.to_dict()),
        dropped=dropped,
    )


def _of_dev(figures: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix("dev_"): value for name, value in figures.items() if name.startswith("dev_")}


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("finetune", argv)
    with distributed.joined(**cli.distributed_flags(invocation)):
        result = finetune(invocation.config, invocation.workdir)
    if jax.process_index() == 0:
        print(f"{result.model.name} on {result.task}: {_scores(result.metrics)} ({result.selection})")
        if result.test_metrics:
            print(f"test, scored once with that step: {_scores(result.test_metrics)}")


def _scores(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
