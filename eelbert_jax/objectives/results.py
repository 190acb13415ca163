"""`result.json`: what a fine-tuning leaves for people, sweeps and reports to read."""

import dataclasses
from typing import Any

import ml_collections

from eelbert_jax.inference.predict import Model
from eelbert_jax.model.config import BertConfig, model_name, size_of
from eelbert_jax.model.count import count_parameters
from eelbert_jax.objectives.evaluation import Evaluation
from eelbert_jax.objectives.task_data import Data, majority_scores
from eelbert_jax.reporting.runs import read_checkpoint
from eelbert_jax.training.environment import environment


def model_record(
    config: ml_collections.ConfigDict, model_config: BertConfig, pretrained: Model | None
) -> dict[str, Any]:
    """Return what the model is, by the name that tables use: BERT-tiny, UNO-EELBERT (scratch).

    An imported model of no published size is called by its layers and width, BERT-L6-H384.
    """
    imported = pretrained is not None and pretrained.is_imported
    size = size_of(dataclasses.asdict(model_config)) if imported else config.size
    called = size or f"L{model_config.num_hidden_layers}-H{model_config.hidden_size}"
    return {
        "name": model_name(called, model_config.embedding) + (" (scratch)" if pretrained is None else ""),
        "size": size,
        "embedding": model_config.embedding,
        "parameters": count_parameters(model_config)["2-class"],
    }


def result(
    config: ml_collections.ConfigDict,
    data: Data,
    model: dict[str, Any],
    pretrained: Model | None,
    evaluation: Evaluation,
    figures: dict[str, float],
    total_steps: int,
) -> dict[str, Any]:
    """Return what `result.json` says besides the time.

    Args:
      config: the run's.
      data: the task.
      model: of `model_record`.
      pretrained: where it started.
      evaluation: remembers the best step.
      figures: those of the last step.
      total_steps: of the run.
    """
    task, first_dev = data.task, next(iter(data.dev))
    where, splits = environment(), {"train": data.train, **data.dev}
    assert evaluation.best is not None
    start = None
    if pretrained is not None:
        start = dataclasses.asdict(read_checkpoint(str(config.pretrained), pretrained.step))
    return {
        "task": task.name,
        "official": task.official,
        "split": first_dev,
        "model": model,
        "pretrained": start,
        "seed": config.seed,
        "learning_rate": config.opt.learning_rate,
        "batch_size": config.batch_size,
        "num_epochs": config.num_epochs,
        "selection": f"best dev step by {task.metrics[0]}",
        "best_step": evaluation.best["step"],
        "total_steps": total_steps,
        "metrics": _of_dev(evaluation.best),
        "final_metrics": _of_dev(figures),
        "degenerate": bool(evaluation.best.get("degenerate")),  # the model of `metrics`, not the last one
        "majority": majority_scores(data),
        "num_examples": {name: len(split.encoded) for name, split in splits.items()},
        "truncated": sum(split.encoded.num_truncated for split in splits.values()),
        "hardware": ", ".join(sorted(set(where["devices"]))),
        "commit": where["commit"],
    }


def _of_dev(figures: dict[str, float]) -> dict[str, float]:
    return {name.removeprefix("dev_"): value for name, value in figures.items() if name.startswith("dev_")}
