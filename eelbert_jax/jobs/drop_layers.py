"""`eelbert drop_layers`: a model in, the same without some of its layers out, as transformers saves it."""

import dataclasses
from pathlib import Path

import ml_collections

from eelbert_jax import cli
from eelbert_jax.compress.drop_layers import (
    CONTRIBUTION,
    STRATEGIES,
    cls_similarities,
    kept_layers,
    layers_to_drop,
    least_contributing,
    without_layers,
)
from eelbert_jax.datasets.encoding import check_max_length
from eelbert_jax.datasets.splits import load_data
from eelbert_jax.errors import UserError, unknown
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.interchange.folder import check_free, write_folder
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.count import count_parameters
from eelbert_jax.record import Dropped, Result
from eelbert_jax.workdir import DROPPED_NAME, RESULT_NAME, claim, write_json


def drop_layers(
    config: ml_collections.ConfigDict,
    source: str | Path,
    workdir: str | Path,
    strategy: str,
    num_dropped: int = 0,
    threshold: float = 0.0,
) -> Dropped:
    """Write the model of `source` without some layers to `workdir`, and what was dropped beside it.

    Args:
      config: of `configs/glue.py`; `contribution` alone reads its task.

    Raises:
      UserError: the layers cannot be dropped so, or `workdir` holds a model.
    """
    _check(strategy, num_dropped, threshold)
    source, folder = Path(source).expanduser(), Path(workdir).expanduser()
    check_free(folder)
    model = load(source)
    num_layers = model.config.num_hidden_layers
    if strategy == CONTRIBUTION:
        dropped = _without_contribution(config, model, threshold)
    else:
        dropped = layers_to_drop(strategy, num_layers, num_dropped)
    # What a checkpoint does not hold, since a run may change it: the published rate, for who trains on.
    published = {
        name: getattr(BertConfig(), name) for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
    }
    smaller, params = without_layers(dataclasses.replace(model.config, **published), model.params, dropped)
    record = _record(model, source, strategy, dropped)
    claim(folder, "drop_layers")
    write_folder(
        folder,
        smaller,
        model.vocabulary,
        params,
        lowercase=model.lowercase,
        task=model.task,
        trained_length=model.trained_length,
    )
    write_json(folder / DROPPED_NAME, dataclasses.asdict(record))
    before, after = (count_parameters(each)["2-class"] for each in (model.config, smaller))
    print(
        f"{strategy} drops {_listed(dropped)} of {num_layers} layers and keeps "
        f"{_listed(kept_layers(num_layers, dropped))}: {before:,} -> {after:,} parameters (2-class)."
    )
    return record


def _check(strategy: str, num_dropped: int, threshold: float) -> None:
    if strategy not in STRATEGIES:
        raise unknown("strategy", strategy, STRATEGIES)
    if strategy != CONTRIBUTION and threshold:
        raise UserError(f"--tau goes with --strategy={CONTRIBUTION}; {strategy} takes --num_layers.")
    if strategy == CONTRIBUTION and (not 0.0 < threshold <= 1.0 or num_dropped):
        raise UserError(
            f"--strategy={CONTRIBUTION} drops as many layers as their cosines say: give --tau=0.95 (the "
            "paper has 0.9 to 0.95) and no --num_layers."
        )


def _without_contribution(
    config: ml_collections.ConfigDict, model: Model, threshold: float
) -> tuple[int, ...]:
    check_max_length(config.max_length, model.config.num_positions)
    data = load_data(config.to_dict(), model.vocabulary, model.lowercase)
    similarities = cls_similarities(model, next(iter(data.dev.values())).encoded)
    for layer, cosine in enumerate(similarities, start=1):
        print(f"layer {layer}: cosine of [CLS] before and after {cosine:.4f}")
    return least_contributing(similarities.tolist(), threshold)


def _record(model: Model, source: Path, strategy: str, dropped: tuple[int, ...]) -> Dropped:
    """Return what the model has lost, counted in the model that it was first."""
    before = Dropped.of(source)
    if before is None:
        origin, order = str(source), []
        if model.task is not None and (source / RESULT_NAME).is_file():
            start = Result.read(source / RESULT_NAME).pretrained
            origin, order = start.workdir if start else origin, ["tune"]
        num_layers = model.config.num_hidden_layers
        before = Dropped(origin, num_layers, kept_layers(num_layers, ()), strategy, order)
    kept = [before.kept_layers[layer - 1] for layer in kept_layers(len(before.kept_layers), dropped)]
    return dataclasses.replace(before, kept_layers=kept, strategy=strategy, order=[*before.order, "drop"])


def _listed(layers: tuple[int, ...] | list[int]) -> str:
    return ", ".join(map(str, layers))


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    config, workdir, flags = cli.parse("drop_layers", argv)
    if not flags["from"] or not flags["strategy"]:
        raise UserError("drop_layers needs a model and a strategy: add --from=DIR --strategy=top.")
    drop_layers(config, flags["from"], workdir, flags["strategy"], flags["num_layers"], flags["tau"])
