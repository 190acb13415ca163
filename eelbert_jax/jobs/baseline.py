"""`eelbert baseline`: what a BERT has to beat on the task of a fine-tuning config, as a run in a report."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from eelbert_jax import cli, store
from eelbert_jax.datasets import metrics, multilabel
from eelbert_jax.datasets.baselines import LINEAR, TAG_LOOKUP, LinearBaseline, TagLookup, majority
from eelbert_jax.datasets.conll import TOKENS, TokenExamples, TokenTask
from eelbert_jax.datasets.glue import Examples
from eelbert_jax.datasets.splits import file_digests, read_splits
from eelbert_jax.datasets.tasks import MULTILABEL, TAG, Task
from eelbert_jax.errors import UserError
from eelbert_jax.record import ModelRecord, Result
from eelbert_jax.training.fit import environment
from eelbert_jax.workdir import DETAILS_NAME, claim, write_whole

NAMES = {"bag_of_words": "bag of words", "tfidf": "TF-IDF", TAG_LOOKUP: "tag lookup"}
ALL = "all"

Splits = Mapping[str, Examples | TokenExamples]


def baseline(config: ml_collections.ConfigDict, workdir: str | Path, kind: str = "") -> list[Result]:
    """Train one, all, or the first of the baselines that fit, and score them on the development splits."""
    fitting = (TAG_LOOKUP,) if config.task == TOKENS else LINEAR
    if kind not in ("", ALL, *fitting):
        raise UserError(f"--kind={kind!r} does not fit {config.task}; take {', '.join(fitting)} or {ALL}.")
    task, splits = read_splits(config.to_dict())
    for split, examples in splits.items():
        print(f"{task.name} {split}: {examples.tally.describe()}", flush=True)
    results = []
    for name in fitting if kind == ALL else (kind or fitting[0],):
        folder = store.folder(workdir) / (name if kind == ALL else "")
        claim(folder, "baseline")
        cli.write_config(config, folder)
        result, details = _run(config, task, splits, name)
        write_whole(folder / DETAILS_NAME, json.dumps(details, indent=2) + "\n")
        result.write(folder)
        results.append(result)
    return results


def _run(
    config: ml_collections.ConfigDict, task: Task | TokenTask, splits: Splits, name: str
) -> tuple[Result, dict[str, Any]]:
    started, dev = time.monotonic(), {split: splits[split] for split in splits if split != "train"}
    model, predictions = _predict(task, splits["train"], dev, name)
    scores: dict[str, float] = {}
    test_scores: dict[str, float] = {}
    for number, (split, found) in enumerate(predictions.items()):
        if split == "test":
            test_scores = dict(_scores(task, found, dev[split]))
            continue
        suffix = "" if number == 0 else "_" + split.removeprefix("dev_")
        scores |= {f"{metric}{suffix}": value for metric, value in _scores(task, found, dev[split]).items()}
    details = {
        split: metrics.details(task.kind, task.labels, found, _truth(dev[split]))
        for split, found in predictions.items()
    }
    first = next(iter(dev))
    result = Result(
        task=task.name,
        official=task.official,
        split=first,
        model=ModelRecord(NAMES[name], None, None, model.num_parameters),
        pretrained=None,
        seed=0,
        learning_rate=0.0,
        batch_size=len(splits["train"]),
        num_epochs=0,
        selection="none: the optimum of the training data",
        best_step=0,
        total_steps=0,
        metrics=scores,
        final_metrics=scores,
        degenerate=any(metrics.degenerate(_flat(found)) for found in predictions.values()),
        majority=_scores(task, _majority(splits["train"], dev[first]), dev[first]),
        num_examples={split: len(examples) for split, examples in splits.items()},
        truncated=0,
        hardware="cpu",
        commit=environment()["commit"],
        seconds=round(time.monotonic() - started, 1),
        test_metrics=test_scores,
        data=file_digests(config.to_dict()),
    )
    return result, details


def _predict(
    task: Task | TokenTask, train: Any, dev: Mapping[str, Any], name: str
) -> tuple[Any, dict[str, Any]]:
    if name == TAG_LOOKUP:
        lookup = TagLookup.fit(train.words, train.tags)
        return lookup, {split: lookup.predict(examples.words) for split, examples in dev.items()}
    model = LinearBaseline.fit(name, train.first, train.second, train.labels, task.kind)
    return model, {split: model.predict(found.first, found.second) for split, found in dev.items()}


def _truth(examples: Any) -> Any:
    return examples.tags if isinstance(examples, TokenExamples) else examples.labels


def _flat(labels: Any) -> np.ndarray:
    return labels if isinstance(labels, np.ndarray) else np.concatenate(labels)


def _scores(task: Task | TokenTask, predictions: Any, examples: Any) -> dict[str, float]:
    if task.kind == TAG:
        return metrics.tag_scores(task.metrics, task.labels, predictions, examples.tags)
    if task.kind == MULTILABEL:
        return multilabel.scores(task.metrics, predictions, examples.labels)
    return metrics.scores(task.metrics, predictions, examples.labels)


def _majority(train: Any, examples: Any) -> Any:
    labels = _flat(_truth(train))
    if isinstance(examples, TokenExamples):
        return [majority(labels, len(words)) for words in examples.words]
    return majority(labels, len(examples))


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("baseline", argv)
    results = baseline(invocation.config, invocation.workdir, invocation.flags["kind"])
    lines = [(result.model.name, result.metrics) for result in results]
    for name, found in (*lines, ("majority class", results[0].majority)):
        figures = "  ".join(f"{key} {value:.4f}" for key, value in found.items())
        print(f"{name} on {results[0].task}: {figures}")
