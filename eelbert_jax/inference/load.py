"""From a folder, a run's or one in the Hugging Face layout, to a model that answers."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from eelbert_jax import store
from eelbert_jax.datasets.conll import TOKENS
from eelbert_jax.datasets.encoding import check_max_length
from eelbert_jax.datasets.tasks import TaskRecord, find_task
from eelbert_jax.errors import UserError
from eelbert_jax.inference.predict import Model, model_class
from eelbert_jax.interchange.folder import Imported, is_folder, read_folder
from eelbert_jax.interchange.packed import is_packed, read_packed
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig, identity
from eelbert_jax.subwords import load_tokenizer
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.workdir import BEST_NAME, CHECKPOINTS_NAME, CONFIG_NAME, read_json

RELEASED = Path(__file__).resolve().parents[1] / "models"
"""Folder of the models that come with the package; a folder of your own called like one is ./NAME."""


def load(path: str | Path, *, encoder_only: bool = False) -> Model:
    """Load a released model by its name, or the model of a folder.

    Of a fine-tuning that is its best step, of a pre-training the newest. `encoder_only` leaves out the heads
    that an imported model has of others, so that any BERT will do.

    Raises:
      UserError: there is no model, or its vocabulary or hash are not what this version computes.
    """
    path = model_folder(path)
    if is_packed(path):
        return _loaded(path, read_packed(path))
    return _loaded(path, read_folder(path, heads=not encoder_only)) if is_folder(path) else _load_run(path)


def model_folder(path: str | Path) -> Path:
    """Return the folder of a model, of a released one by its name; a `UserError` where there is no folder."""
    folder = RELEASED / path if str(path) in released_models() else store.folder(path)
    if not folder.is_dir():
        raise UserError(
            f"There is no model {str(path)!r}: name a run's workdir, a folder as transformers saves a model, "
            f"or one that comes with the package: {', '.join(released_models())}."
        )
    return folder


def released_models() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(path.name for path in RELEASED.iterdir() if is_packed(path)))


def _loaded(path: Path, found: Imported) -> Model:
    config = dataclasses.replace(found.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    params = jax.tree.map(jnp.asarray, found.params)
    return Model(
        path=path,
        config=config,
        vocabulary=found.vocabulary,
        params=params,
        constants=jax.device_put(bert.constants(config, found.vocabulary, params)),
        lowercase=found.lowercase,
        step=None,
        task=found.task,
        trained_length=found.trained_length,
    )


def _load_run(path: Path) -> Model:
    steps = path / (BEST_NAME if (path / BEST_NAME).is_dir() else CHECKPOINTS_NAME)
    with Checkpoints(steps, create=False) as checkpoints:
        saved = checkpoints.identity()
        vocabulary = load_tokenizer(path)
        config = BertConfig.from_identity(saved["model"])
        task = _task_record(saved, path)
        if task is not None:
            check_max_length(task.max_length, config.num_positions)
            config = dataclasses.replace(config, num_labels=max(len(task.labels), 1))
        expected_identity = identity(config, vocabulary, saved["lowercase"])
        if task is not None:
            expected_identity["task"] = saved["task"]
        params = checkpoints.restore_params(_shapes(config, task), expected_identity)
        step = checkpoints.latest_step()
    return Model(
        path=path,
        config=config,
        vocabulary=vocabulary,
        params=params,
        constants=jax.device_put(bert.constants(config, vocabulary, params)),
        lowercase=saved["lowercase"],
        step=step,
        task=task,
        trained_length=_trained_length(path),
    )


def _trained_length(path: Path) -> int | None:
    """Return the tokens of a pre-training's rows, as that run or one that started from it recorded them."""
    run = read_json(path / CONFIG_NAME).get("run", {}) if (path / CONFIG_NAME).is_file() else {}
    return run.get("trained_length", run.get("row_length"))


def _task_record(saved: dict[str, Any], path: Path) -> TaskRecord | None:
    """Return what a checkpoint is fine-tuned for; of old ones most of it stands in their config.json."""
    if "task" not in saved or "kind" in saved["task"]:
        return TaskRecord.from_dict(saved["task"]) if "task" in saved else None
    name, labels = saved["task"]["name"], tuple(saved["task"]["labels"])
    settings = read_json(path / CONFIG_NAME)
    try:
        if name == "custom":
            reads_pairs = settings["custom"]["second_text_column"] is not None
        else:
            reads_pairs = name != TOKENS and len(find_task(name).text_fields) == 2
        # A text beyond the positions ended such a run: none was longer.
        max_length = min(settings["max_length"], saved["model"]["max_position_embeddings"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / CONFIG_NAME} does not say {error}; restore the file.") from error
    kind = "tag" if name == TOKENS else "classify" if labels else "regress"
    return TaskRecord(name, kind, labels, reads_pairs, max_length)


def _shapes(config: BertConfig, task: TaskRecord | None) -> Any:
    pretrained = bert.BertForSentenceEmbedding if config.sentence_size else bert.BertForMaskedLM
    model = (pretrained if task is None else model_class(task))(config)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct((1, 1), jnp.int32))["params"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
