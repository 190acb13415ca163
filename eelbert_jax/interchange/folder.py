"""Read and write a model as a folder in the Hugging Face layout: config.json, model.safetensors, vocab.txt.

A hashed model is written with its vectors as the table; its hash, and what a model was fine-tuned for, stand
in config.json under "eelbert_jax", which transformers ignores.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from eelbert_jax import store
from eelbert_jax.datasets.tasks import CLASSIFY, MULTILABEL, TAG, TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.interchange.architectures import ARCHITECTURES, architecture_of
from eelbert_jax.interchange.hf import (
    PROJECTION,
    SHARED_FIELDS,
    VOCABULARY_TENSORS,
    WORD_EMBEDDINGS,
    from_hf,
    full_names,
    hf_config,
    to_hf,
)
from eelbert_jax.interchange.tokenizer_files import (
    SETTINGS,
    VOCABULARY,
    WHOLE,
    read_object,
    read_tokenizer,
    tokenizer_settings,
)
from eelbert_jax.model.bert import BertForMaskedLM, BertForSequenceClassification, hash_projection
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.embeddings import token_vectors
from eelbert_jax.subwords import save_tokenizer
from eelbert_jax.vocabulary import Vocabulary
from eelbert_jax.workdir import write_whole

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED = "pytorch_model.bin"
MODULES = "modules.json"
"""What sentence-transformers does with a text, one after another."""
EXTRAS = "eelbert_jax"
"""Key of config.json: {"embedding": KIND, "hash": {...}, "hash_width": W, "task": {...}, "trained_length":
tokens}, each where there is one."""

REQUIRED_FIELDS = SHARED_FIELDS[:5]
"""Sizes without which there is no model; a field left out of the others has the published default."""

MULTILABEL_PROBLEM = "multi_label_classification"
CLASSIFIERS = {"ForSequenceClassification": CLASSIFY, "ForTokenClassification": TAG}
"""Heads called `classifier` that are read; others of that name (multiple choice) answer something else."""


class Imported(NamedTuple):
    """Hold a model as a folder does.

    Attributes:
      config: of the folder; float32, layers not scanned.
      params: float32 numpy arrays: "bert", with "pooler" where the folder has one, and the heads that it has:
        "cls" (MLM), "classifier" (`config.num_labels` classes).
      task: of the classifier; whether it reads pairs is known of our own folders alone.
      trained_length: tokens of the rows that it was pre-trained on, of our own folders.
    """

    config: BertConfig
    vocabulary: Vocabulary
    params: dict[str, Any]
    lowercase: bool
    task: TaskRecord | None
    trained_length: int | None


def is_folder(path: str | Path) -> bool:
    """Return whether `path` looks like a folder in the Hugging Face layout, and not like one of our runs.

    Both have a config.json; only the former has weights beside it or a "model_type" in it.
    """
    path = store.folder(path)
    if any((path / name).is_file() for name in (WEIGHTS, INDEX, PICKLED)):
        return True
    return (path / CONFIG).is_file() and "model_type" in read_object(path / CONFIG)


def read_folder(path: str | Path, *, heads: bool = True) -> Imported:
    """Read a BERT or one of its family; say on stderr what is left out.

    That is: other heads, and rows of the table without a token.
    Without `heads` it is the encoder alone, but for the classifier of a model that was fine-tuned here.

    Raises:
      UserError: it is no BERT, or its tensors are not those of its config.json or not the vectors of its
        hash.
    """
    path = Path(path)
    values = read_object(path / CONFIG)
    config = _bert_config(path / CONFIG, values)
    state = full_names(_read_weights(path), config.architecture)
    vocabulary, lowercase = read_tokenizer(path, ARCHITECTURES[config.architecture].vocabulary)
    _check_padding(path, vocabulary, config)
    kind = _classifier_kind(values, config) if heads or "task" in values.get(EXTRAS, {}) else None
    read_heads = [*(["cls.predictions."] if heads else []), *(["classifier."] if kind else [])]
    state = _without_other_heads(path, state, ("bert.", *read_heads))
    task = None
    if kind is not None and "classifier.weight" in state:
        config = dataclasses.replace(config, num_labels=len(state["classifier.weight"]))
        task = _task(values, kind, config)
    if config.has_trained_table:
        state.pop(PROJECTION, None)  # of a wide hash that is to be read as a table
        config = _fit_table(path, state, config, vocabulary)
    else:
        _take_vectors(path, state, config, vocabulary)
    try:
        params = from_hf(state, config, _shapes(config, state))
    except UserError as error:
        raise UserError(f"{path / WEIGHTS}: {error}") from error
    if any(path.glob("*_Dense")):
        print(f"{path}: read without {MODULES}'s projection: its vectors are the encoder's.", file=sys.stderr)
    trained_length = values.get(EXTRAS, {}).get("trained_length")
    return Imported(config, vocabulary, params, lowercase, task, trained_length)


def write_folder(
    path: str | Path,
    config: BertConfig,
    vocabulary: Vocabulary,
    params: Mapping[str, Any],
    *,
    lowercase: bool,
    task: TaskRecord | None = None,
    trained_length: int | None = None,
) -> None:
    """Write a model so that plain transformers loads it.

    Files of that name are never overwritten: a run's own folder has a config.json too.
    """
    path = Path(path)
    check_free(path)
    architecture = ARCHITECTURES[config.architecture]
    if type(vocabulary) is not architecture.vocabulary:
        raise UserError(
            f"A {architecture.class_prefix} reads {architecture.vocabulary.kind} in transformers, and this "
            f"model {vocabulary.kind}: it is used by eelbert_jax alone."
        )
    if task is not None and max(len(task.labels), 1) != config.num_labels:
        raise UserError(f"{len(task.labels)} labels for {config.num_labels} classes; name every class.")
    projection = hash_projection(params)
    vectors = None if config.has_trained_table else token_vectors(config, vocabulary, projection)
    state = {name: np.ascontiguousarray(array) for name, array in to_hf(params, config, vectors).items()}
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"Cannot write a model to {path} ({error}); choose a folder you may write."
        ) from error
    settings = tokenizer_settings(vocabulary, lowercase, config.num_positions)
    values = config_values(config, params, task, trained_length)
    write_whole(path / WEIGHTS, save(state, metadata={"format": "pt"}))
    save_tokenizer(vocabulary, path)
    write_whole(path / SETTINGS, json.dumps(settings, indent=2) + "\n")
    write_whole(path / CONFIG, json.dumps(values, indent=2) + "\n")


def check_free(path: Path) -> None:
    """Refuse a folder with files of a model or a run."""
    taken = [name for name in (CONFIG, WEIGHTS, VOCABULARY, WHOLE, SETTINGS) if (path / name).exists()]
    if taken:
        raise UserError(f"{path} already holds {', '.join(taken)}; name an empty folder.")


def config_values(
    config: BertConfig,
    params: Mapping[str, Any],
    task: TaskRecord | None,
    trained_length: int | None = None,
) -> dict[str, Any]:
    """Return the config.json of a model as transformers knows it."""
    values = {**hf_config(config), "architectures": [_class_name(config, params)]}
    extras: dict[str, Any] = {} if trained_length is None else {"trained_length": trained_length}
    if config.embedding != "table":
        extras |= {"embedding": config.embedding, "hash": config.hash.to_dict()}
    if config.hash_width is not None:
        extras["hash_width"] = config.hash_width
    if task is not None:
        extras["task"] = task.to_dict()
        if task.kind == MULTILABEL:
            values["problem_type"] = MULTILABEL_PROBLEM
        if task.labels:
            values["id2label"] = {str(i): label for i, label in enumerate(task.labels)}
            values["label2id"] = {label: i for i, label in enumerate(task.labels)}
    return values | ({EXTRAS: extras} if extras else {})


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    names = [WEIGHTS]
    if (path / INDEX).is_file() and not (path / WEIGHTS).is_file():
        names = sorted(set(read_object(path / INDEX).get("weight_map", {}).values()))
    state: dict[str, np.ndarray] = {}
    for name in names:
        if not (path / name).is_file():
            found = f"has {PICKLED}, which is not read" if (path / PICKLED).is_file() else f"has no {name}"
            raise UserError(
                f"{path} {found}. Load the model with transformers and save it again: "
                "model.save_pretrained(DIR)."
            )
        try:
            state |= load_file(path / name)
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path / name} cannot be read ({error}); fetch or write it again.") from error
    return state


def _bert_config(path: Path, values: Mapping[str, Any]) -> BertConfig:
    try:
        architecture = architecture_of(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    missing = [name for name in map(architecture.field, REQUIRED_FIELDS) if name not in values]
    if missing:
        kind = architecture.class_prefix
        raise UserError(f"{path} has no {', '.join(missing)}; expected the configuration of a {kind}.")
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(BertConfig):
        name = architecture.field(field.name)
        if field.name in SHARED_FIELDS and name in values:
            value = values[name]
            legal = (int, float) if field.type is float else (int,)
            if isinstance(value, bool) or not isinstance(value, legal):
                raise UserError(f"{path}: {name} is {value!r}; expected a number.")
            fields[field.name] = value
    fields |= {**architecture.fixed, "architecture": architecture.model_type, "embedding": "table"}
    extras = values.get(EXTRAS, {})
    try:
        if not isinstance(extras, dict) or ("embedding" in extras) != ("hash" in extras):
            raise UserError(f'{EXTRAS} is {extras!r}; expected {{"embedding": ..., "hash": ...}}.')
        if "hash" in extras:
            fields |= {"embedding": extras["embedding"], "hash": HashSpec.from_dict(extras["hash"])}
            width = fields["hash_width"] = extras.get("hash_width")
            if type(width) not in (int, type(None)):
                raise UserError(f"hash_width is {width!r}; expected a number.")
        return BertConfig(**fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _classifier_kind(values: Mapping[str, Any], config: BertConfig) -> str | None:
    """Return what the head called `classifier` is for; None for one that is not read."""
    prefix = ARCHITECTURES[config.architecture].class_prefix
    kind = CLASSIFIERS.get((values.get("architectures") or [""])[0].removeprefix(prefix))
    if values.get("problem_type") == MULTILABEL_PROBLEM:
        return MULTILABEL if kind == CLASSIFY else None
    return kind


def _task(values: Mapping[str, Any], kind: str, config: BertConfig) -> TaskRecord:
    """Return what a classifier was fine-tuned for; classes without a name are called as transformers does."""
    extras = values.get(EXTRAS, {})
    if "task" in extras:
        return TaskRecord.from_dict(extras["task"])
    named = values.get("id2label") or {}
    labels = [str(named.get(str(i), f"LABEL_{i}")) for i in range(config.num_labels)]
    if kind == "classify" and config.num_labels == 1:
        kind, labels = "regress", []
    return TaskRecord("a folder's task", kind, tuple(labels), False, config.num_positions)


def _check_padding(path: Path, vocabulary: Vocabulary, config: BertConfig) -> None:
    """Refuse a vocabulary by which transformers would count positions otherwise than `first_position`."""
    expected = config.first_position - 1
    if config.first_position and vocabulary.pad_id != expected:
        raise UserError(
            f"{path}: {vocabulary.special_tokens[0]} has the id {vocabulary.pad_id}, and positions are "
            f"counted from id {expected}; put the model's own vocabulary there."
        )


def _without_other_heads(
    path: Path, state: dict[str, np.ndarray], prefixes: tuple[str, ...]
) -> dict[str, np.ndarray]:
    kept = {name: array for name, array in state.items() if name.startswith(prefixes)}
    others = state.keys() - kept.keys()
    left_out = sorted({name.removesuffix(".weight").removesuffix(".bias") for name in others})
    if left_out:
        print(f"{path}: read without {', '.join(left_out)}.", file=sys.stderr)
    return kept


def _fit_table(
    path: Path, state: dict[str, np.ndarray], config: BertConfig, vocabulary: Vocabulary
) -> BertConfig:
    """Cut rows off that no token has: tables are padded to a multiple of 8 or more for speed."""
    rows = len(state.get(WORD_EMBEDDINGS, ()))
    if rows != config.vocab_size or rows < vocabulary.size:
        raise UserError(
            f"{path} has {vocabulary.size} tokens and {rows} rows of word embeddings, but {CONFIG} says "
            f"vocab_size={config.vocab_size}; put the model's own files there."
        )
    if rows > vocabulary.size:
        print(f"{path}: {rows - vocabulary.size} padded rows of the table have no token.", file=sys.stderr)
        for name in VOCABULARY_TENSORS & state.keys():
            state[name] = state[name][: vocabulary.size]
    return dataclasses.replace(config, vocab_size=vocabulary.size)


def _take_vectors(
    path: Path, state: dict[str, np.ndarray], config: BertConfig, vocabulary: Vocabulary
) -> None:
    """Remove the hash's vectors from a state dict; they have to be what this version computes.

    Those of the hash itself bit by bit; a projection's sums are rounded as each device does.
    """
    if config.hash_width is not None and PROJECTION not in state:
        raise UserError(
            f"{path / WEIGHTS} has no {PROJECTION}, which a hash of hash_width={config.hash_width} takes; "
            "restore the file."
        )
    expected = token_vectors(config, vocabulary, state.get(PROJECTION))
    given = state.pop(WORD_EMBEDDINGS, None)
    tolerance = 0.0 if config.hash_width is None else 1e-5 * float(np.abs(expected).max())
    if given is None or given.shape != expected.shape or not (np.abs(given - expected) <= tolerance).all():
        raise UserError(
            f"{path / WEIGHTS}: the word embeddings are not the vectors of the hash in {CONFIG}: trained "
            f'since, or of another vocabulary. Remove "hash" and "embedding" from "{EXTRAS}" in {CONFIG} to '
            "read them as a trained table."
        )


def _shapes(config: BertConfig, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the shapes of the parameters that `state` has a part of, whole parts."""

    def shapes_of(model: Any) -> dict[str, Any]:
        return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]

    shapes = dict(shapes_of(BertForSequenceClassification(config)))
    shapes["bert"] = dict(shapes["bert"])
    if not any(name.startswith("bert.pooler.") for name in state):
        del shapes["bert"]["pooler"]
    if not any(name.startswith("classifier.") for name in state):
        del shapes["classifier"]
    if any(name.startswith("cls.predictions.") for name in state):
        shapes["cls"] = shapes_of(BertForMaskedLM(config))["cls"]
    return shapes


def _class_name(config: BertConfig, params: Mapping[str, Any]) -> str:
    kind = "Model"
    if "cls" in params:
        kind = "ForMaskedLM"
    elif "classifier" in params:
        kind = "ForSequenceClassification" if "pooler" in params["bert"] else "ForTokenClassification"
    return ARCHITECTURES[config.architecture].class_prefix + kind
