"""Read and write a model as a folder in the Hugging Face layout.

    config.json, model.safetensors, vocab.txt, tokenizer_config.json

Plain transformers loads what `write_folder` wrote, and `read_folder` reads what transformers saved of a BERT.
A hashed model is written with its vectors as the table; config.json then also holds, under "eelbert_jax", the
hash that they follow from, which transformers ignores and `read_folder` takes up. Leaves the names of
parameters to `eelbert_jax.interchange.hf`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.interchange.hf import SHARED_FIELDS, WORD_EMBEDDINGS, from_hf, full_names, hf_config, to_hf
from eelbert_jax.model.bert import BertForMaskedLM, BertForSequenceClassification
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.embeddings import embedding_constants
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary, save_vocabulary

CONFIG, WEIGHTS = "config.json", "model.safetensors"
VOCABULARY, TOKENIZER = "vocab.txt", "tokenizer_config.json"
UNREAD_WEIGHTS = ("pytorch_model.bin", "model.safetensors.index.json")
OURS = "eelbert_jax"
"""Key of config.json: {"embedding": KIND, "hash": {...}}."""

REQUIRED_FIELDS = SHARED_FIELDS[:5]
"""Sizes without which there is no model; a field left out of the others has the published default."""

ENCODER = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}
"""What config.json may leave out but not contradict: the one architecture there is here."""

NOT_OURS = (r"cls\.seq_relationship\..*",)
HEADS = (r"cls\..*", r"classifier\..*")


class Imported(NamedTuple):
    """A model as a folder holds it.

    Attributes:
      config: sizes and dropout of the folder; float32, layers not scanned.
      vocabulary: of V tokens.
      params: float32 numpy arrays: "bert", with "pooler" where the folder has one, and the heads that it has:
        "cls" (MLM), "classifier" (`config.num_labels` classes).
      lowercase: how text is read.
    """

    config: BertConfig
    vocabulary: Vocabulary
    params: dict[str, Any]
    lowercase: bool


def is_folder(path: str | Path) -> bool:
    """Whether `path` looks like a folder in the Hugging Face layout, and not like one of our runs.

    Both have a config.json; only theirs has weights beside it or a "model_type" in it. Source: ours.
    """
    path = Path(path)
    if any((path / name).is_file() for name in (WEIGHTS, *UNREAD_WEIGHTS)):
        return True
    return (path / CONFIG).is_file() and "model_type" in _read_json(path / CONFIG)


def read_folder(path: str | Path, *, heads: bool = True) -> Imported:
    """Read a BERT.

    Args:
      path: the folder.
      heads: read the MLM head and the classifier too, where there are any. The head for next-sentence
        prediction is left out always.

    Raises:
      UserError: a file is missing or cannot be read, the model is no BERT, names or shapes of its parameters
        are not those that its config.json describes, or its vectors are not those of its hash.
    """
    path = Path(path)
    values = _read_json(path / CONFIG)
    state = full_names(_read_weights(path))
    vocabulary = load_vocabulary(path / VOCABULARY)
    config = _bert_config(path / CONFIG, values)
    if vocabulary.size != config.vocab_size:
        raise UserError(
            f"{path / VOCABULARY} has {vocabulary.size} tokens, but {CONFIG} says vocab_size="
            f"{config.vocab_size}; put the model's own vocabulary there."
        )
    if heads and "classifier.weight" in state:
        config = dataclasses.replace(config, num_labels=len(state["classifier.weight"]))
    if not config.has_trained_table:
        _take_vectors(path, state, config, vocabulary)
    ignore = NOT_OURS if heads else (*NOT_OURS, *HEADS)
    try:
        params = from_hf(state, config, _shapes(config, state, heads), ignore)
    except UserError as error:
        raise UserError(f"{path / WEIGHTS}: {error}") from error
    return Imported(config, vocabulary, params, _lowercase(path / TOKENIZER))


def write_folder(
    path: str | Path,
    config: BertConfig,
    vocabulary: Vocabulary,
    params: Mapping[str, Any],
    *,
    lowercase: bool,
    labels: Sequence[str] = (),
) -> None:
    """Write a model so that plain transformers loads it.

    Files of that name are never overwritten: a run's own folder has a config.json too.

    Args:
      path: the folder, made where it is missing.
      config: of the model.
      vocabulary: its tokens, V of them.
      params: of any model of `eelbert_jax.model.bert`.
      lowercase: how text is read.
      labels: names of the classes in the order of the outputs; () where there are none.

    Raises:
      UserError: the folder holds such files or cannot be written, or there is not one label for each class.
    """
    path = Path(path)
    taken = [name for name in (CONFIG, WEIGHTS, VOCABULARY, TOKENIZER) if (path / name).exists()]
    if taken:
        raise UserError(f"{path} already holds {', '.join(taken)}; name an empty folder.")
    if labels and len(labels) != config.num_labels:
        raise UserError(f"{len(labels)} labels for {config.num_labels} classes; name every class.")
    vectors = None if config.has_trained_table else _vectors(config, vocabulary)
    state = {name: np.ascontiguousarray(array) for name, array in to_hf(params, config, vectors).items()}
    values = {**hf_config(config), "architectures": [_architecture(params)]}
    if labels:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    if config.embedding != "table":
        values[OURS] = {"embedding": config.embedding, "hash": config.hash.to_dict()}
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        "model_max_length": config.max_position_embeddings,
    }
    try:
        path.mkdir(parents=True, exist_ok=True)
        save_file(state, path / WEIGHTS, metadata={"format": "pt"})
        save_vocabulary(vocabulary, path / VOCABULARY)
        (path / TOKENIZER).write_text(json.dumps(tokenizer, indent=2) + "\n", encoding="utf-8")
        (path / CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"Cannot write a model to {path} ({error}); choose a folder you may write."
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}); a model in the Hugging Face layout has {CONFIG}, "
            f"{WEIGHTS}, {VOCABULARY} and {TOKENIZER}."
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object; restore the file.")
    return values


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    """Return the state dict, names as they are."""
    if not (path / WEIGHTS).is_file():
        there = [name for name in UNREAD_WEIGHTS if (path / name).is_file()]
        found = f"has {' and '.join(there)}, which is not read" if there else "has no weights"
        raise UserError(
            f"{path} {found}; expected one {WEIGHTS}. Load the model with transformers and save it in one "
            "piece: model.save_pretrained(DIR)."
        )
    try:
        return load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path / WEIGHTS} cannot be read ({error}); fetch or write it again.") from error


def _bert_config(path: Path, values: Mapping[str, Any]) -> BertConfig:
    """Return the configuration that a config.json describes."""
    _require(path, values, ENCODER)
    missing = [name for name in REQUIRED_FIELDS if name not in values]
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}; expected the configuration of a BERT.")
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(BertConfig):
        if field.name in SHARED_FIELDS and field.name in values:
            value = values[field.name]
            legal = (int, float) if field.type is float else (int,)
            if isinstance(value, bool) or not isinstance(value, legal):
                raise UserError(f"{path}: {field.name} is {value!r}; expected a number.")
            fields[field.name] = value
    fields["embedding"] = "table"
    try:
        if OURS in values:
            if not isinstance(values[OURS], dict) or set(values[OURS]) != {"embedding", "hash"}:
                raise UserError(f'{OURS} is {values[OURS]!r}; expected {{"embedding": ..., "hash": ...}}.')
            fields["embedding"] = values[OURS]["embedding"]
            fields["hash"] = HashSpec.from_dict(values[OURS]["hash"])
        return BertConfig(**fields)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _lowercase(path: Path) -> bool:
    """Return how a tokenizer_config.json says that text is read."""
    values = _read_json(path)
    if "do_lower_case" not in values or not isinstance(values["do_lower_case"], bool):
        raise UserError(
            f'{path} does not say how text is read: add "do_lower_case": true (uncased) or false (cased).'
        )
    _require(path, values, {"tokenize_chinese_chars": True})
    lowercase = values["do_lower_case"]
    if "strip_accents" in values and values["strip_accents"] not in (None, lowercase):
        raise UserError(f"{path}: accents are stripped with lowercasing or not at all; no mix is read here.")
    return lowercase


def _require(path: Path, values: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise a `UserError` unless `values` agree with `expected` where they say anything."""
    for name, value in expected.items():
        if name in values and values[name] != value:
            raise UserError(
                f"{path}: {name} is {values[name]!r}, expected {value!r}; a BERT as published is read, and "
                "nothing else."
            )


def _vectors(config: BertConfig, vocabulary: Vocabulary) -> np.ndarray:
    """Return the vectors of a hashed embedding, float32 [V, D]."""
    return embedding_constants(dataclasses.replace(config, embedding_mode="cached"), vocabulary)["table"]


def _take_vectors(
    path: Path, state: dict[str, np.ndarray], config: BertConfig, vocabulary: Vocabulary
) -> None:
    """Remove the hash's vectors from a state dict; they have to be what this version computes, bit by bit."""
    expected = _vectors(config, vocabulary)
    if WORD_EMBEDDINGS not in state or not np.array_equal(state.pop(WORD_EMBEDDINGS), expected):
        raise UserError(
            f"{path / WEIGHTS}: the word embeddings are not the vectors of the hash in {CONFIG}: trained "
            f'since, or of another vocabulary. Remove "{OURS}" from {CONFIG} to read them as a trained table.'
        )


def _shapes(config: BertConfig, state: Mapping[str, np.ndarray], heads: bool) -> dict[str, Any]:
    """Return the shapes of the parameters that `state` has a part of, whole parts."""

    def shapes_of(model) -> dict[str, Any]:
        return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]

    shapes = dict(shapes_of(BertForSequenceClassification(config)))
    shapes["bert"] = dict(shapes["bert"])
    if not any(name.startswith("bert.pooler.") for name in state):
        del shapes["bert"]["pooler"]
    if not heads or not any(name.startswith("classifier.") for name in state):
        del shapes["classifier"]
    if heads and any(name.startswith("cls.predictions.") for name in state):
        shapes["cls"] = shapes_of(BertForMaskedLM(config))["cls"]
    return shapes


def _architecture(params: Mapping[str, Any]) -> str:
    """Return the name of transformers' class for a model with these parts."""
    if "cls" in params:
        return "BertForMaskedLM"
    if "classifier" not in params:
        return "BertModel"
    return "BertForSequenceClassification" if "pooler" in params["bert"] else "BertForTokenClassification"
