"""Rename parameters between our tree and a Hugging Face state dict, both ways.

Between stand the names of the published BERT, which those of other architectures are replaced with. Ours and
BERT's differ in the names of leaves, the orientation of dense kernels and the place of a layer's number.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from eelbert_jax.errors import UserError
from eelbert_jax.interchange.architectures import ARCHITECTURES
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.encoder import stack_layers, unstack_layers

WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
DECODER, DECODER_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
BIAS = "cls.predictions.bias"
PROJECTION = "bert.embeddings.word_embeddings.projection"
"""Of a wide hash; no published BERT has it, and transformers leaves it unread beside the table."""
VOCABULARY_TENSORS = {WORD_EMBEDDINGS, DECODER, DECODER_BIAS, BIAS}
"""With a row or an entry for every token."""
# A state dict saved from a live torch module holds a tied tensor under both of its names.
ALIASES = {DECODER_BIAS: BIAS, DECODER: WORD_EMBEDDINGS}
# Of the first published checkpoints: TensorFlow's LayerNorm names, and a buffer that is no parameter.
OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
BUFFERS = ("bert.embeddings.position_ids",)
MOST_COMPLAINTS = 10
"""That are listed of weights which do not fit: a whole model's would bury what is to be done."""
INTO_HEADS = re.compile(r"\.attention\.self\.\w+\.weight$")
OUT_OF_HEADS = re.compile(r"\.attention\.output\.dense\.weight$")
SHARED_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
    "num_labels",
)


def hf_config(config: BertConfig) -> dict[str, Any]:
    """Return the fields of the Hugging Face configuration that describes the same encoder.

    A hashed embedding is no field of it: exported, it is a table that the decoder is not tied to.

    Raises:
      UserError: no BERT as published is this encoder.
    """
    beyond = {"embedding_size": None, "num_hidden_groups": None, "adapter_size": None, "pooling": "pooler"}
    unknown = [f"{name}={getattr(config, name)}" for name in beyond if getattr(config, name) != beyond[name]]
    if unknown:
        raise UserError(
            f"No published BERT has {', '.join(unknown)}: such a model is used by eelbert_jax alone."
        )
    architecture = ARCHITECTURES[config.architecture]
    shared = {
        architecture.field(name): getattr(config, name)
        for name in SHARED_FIELDS
        if name not in architecture.fixed
    }
    return {
        "model_type": architecture.model_type,
        "pad_token_id": 0,
        **architecture.required,
        "tie_word_embeddings": config.ties_decoder,
        **shared,
    }


def to_hf(
    params: Mapping[str, Any], config: BertConfig, word_vectors: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return the float32 state dict of the Hugging Face model of the same head.

    A tied decoder appears once, as the word embeddings. The bias of a decoupled one appears twice:
    transformers >= 5 reads it as the decoder's, older ones as the head's.

    Args:
      word_vectors: float32 [V, D], the hashed vectors, stored where torch keeps its table; None: left out.
    """
    flat = _flatten(params, config)
    state = {_hf_name(path): _orient(path, np.asarray(leaf, np.float32)) for path, leaf in flat.items()}
    if DECODER in state:
        state[DECODER_BIAS] = state[BIAS]
    if word_vectors is not None:
        if config.has_trained_table:
            raise UserError(
                f"The model trains its table (embedding={config.embedding!r}); pass no word_vectors."
            )
        state[WORD_EMBEDDINGS] = np.asarray(word_vectors, np.float32)
    architecture = ARCHITECTURES[config.architecture]
    own_names = architecture.own_names(state)
    unused = {name: np.zeros((1, 1, config.hidden_size), np.float32) for name in architecture.unused}
    if architecture.heads_apart:
        state = {name: _apart(name, array, config.num_attention_heads) for name, array in state.items()}
    return {own_names[name]: array for name, array in state.items()} | unused


def from_hf(state: Mapping[str, np.ndarray], config: BertConfig, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a Hugging Face state dict holds; both sides must match exactly.

    Args:
      state: under the names that `full_names` gives.
      like: parameters or their shapes, as `jax.eval_shape(model.init, key, input_ids)["params"]` gives.

    Returns:
      A tree like `like`, of float32 numpy arrays.
    """
    expected = jax.eval_shape(lambda tree: _flatten(tree, config), like)
    names = {_hf_name(path): path for path in expected}
    given = _without_aliases({name: np.asarray(array) for name, array in state.items()}, names)
    shapes = {name: _hf_shape(path, expected[path].shape) for name, path in names.items()}
    _require_match(given, shapes, ARCHITECTURES[config.architecture].own_names({**given, **shapes}))
    flat = {path: _orient(path, given[name].astype(np.float32)) for name, path in names.items()}
    return _unflatten(flat, config)


def full_names(state: Mapping[str, np.ndarray], architecture: str = "bert") -> dict[str, np.ndarray]:
    """Return a state dict under today's names of a BERT with a head, without buffers."""
    renamed = {_new_name(name, architecture): array for name, array in state.items()}
    if ARCHITECTURES[architecture].heads_apart:
        renamed = {name: _joined(name, array) for name, array in renamed.items()}
    return {name: array for name, array in renamed.items() if name not in BUFFERS}


def _apart(name: str, matrix: np.ndarray, num_heads: int) -> np.ndarray:
    """Return one of attention's matrices, [out, in], as [D, H, D / H]."""
    if INTO_HEADS.search(name):
        matrix = matrix.T
    elif not OUT_OF_HEADS.search(name):
        return matrix
    return matrix.reshape(len(matrix), num_heads, -1)


def _joined(name: str, array: np.ndarray) -> np.ndarray:
    """Undo `_apart`."""
    if array.ndim == 3 and INTO_HEADS.search(name):
        return array.reshape(len(array), -1).T
    if array.ndim == 3 and OUT_OF_HEADS.search(name):
        return array.reshape(len(array), -1)
    return array


def _flatten(params: Mapping[str, Any], config: BertConfig) -> dict[str, Any]:
    params = dict(params)
    if config.scan_layers:
        params = _map_encoder(unstack_layers, params)
    return traverse_util.flatten_dict(params, sep="/")


def _unflatten(flat: dict[str, np.ndarray], config: BertConfig) -> dict[str, Any]:
    params = traverse_util.unflatten_dict(flat, sep="/")
    if config.scan_layers:
        params = jax.tree.map(np.asarray, _map_encoder(stack_layers, params))
    return params


def _map_encoder(function: Callable[[dict], dict], params: dict[str, Any]) -> dict[str, Any]:
    bert = params["bert"]
    return {**params, "bert": {**bert, "encoder": function(bert["encoder"])}}


def _hf_name(path: str) -> str:
    """Return the published name of a parameter: `.../layer_3/.../kernel` is `....layer.3.....weight`."""
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", path)
    return re.sub(r"/(kernel|scale|embedding)$", "/weight", name).replace("/", ".")


def _is_transposed(path: str) -> bool:
    """Whether torch keeps this matrix as [out, in]. The decoder is [V, D] on both sides."""
    return path.endswith("/kernel") and not path.endswith("/decoder/kernel")


def _orient(path: str, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T) if _is_transposed(path) else array


def _hf_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if _is_transposed(path) else shape


def _new_name(name: str, architecture: str) -> str:
    for old, new in OLD_ENDINGS.items():
        name = name.replace(old, new)
    return ARCHITECTURES[architecture].bert_name(name)


def _without_aliases(given: dict[str, np.ndarray], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Drop second names of tied tensors that the model knows under the first only."""
    kept = dict(given)
    for alias, name in ALIASES.items():
        if alias not in given or alias in names or name not in given:
            continue
        if not np.array_equal(given[alias], given[name]):
            raise UserError(
                f"{alias} and {name} differ in the checkpoint, but the model ties them; use a model with a "
                f"decoder of its own, or a checkpoint that is tied."
            )
        del kept[alias]
    return kept


def _require_match(
    given: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], called: Mapping[str, str]
) -> None:
    complaints = [
        f"missing: {called[name]} {list(expected[name])}" for name in sorted(expected.keys() - given.keys())
    ]
    complaints += [
        f"left over: {called[name]} {list(given[name].shape)}"
        for name in sorted(given.keys() - expected.keys())
    ]
    complaints += [
        f"shape: {called[name]} is {list(given[name].shape)}, the model has {list(expected[name])}"
        for name in sorted(expected.keys() & given.keys())
        if given[name].shape != expected[name]
    ]
    if len(complaints) > MOST_COMPLAINTS:
        complaints[MOST_COMPLAINTS:] = [f"and {len(complaints) - MOST_COMPLAINTS} more"]
    if complaints:
        raise UserError(
            "The weights do not fit the model; give them the config.json that they were saved with.\n  "
            + "\n  ".join(complaints)
        )
