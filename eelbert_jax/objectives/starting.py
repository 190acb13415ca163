"""What a fine-tuning starts from: a checkpoint of ours, an imported model, or nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.config import SIZES, BertConfig, bert_config
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary


def starting_model(config: ml_collections.ConfigDict) -> tuple[BertConfig, Vocabulary, Model | None]:
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
    pretrained = load(config.pretrained, encoder_only=True)
    pretrained.require_pretrained()
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


def initial_params(model: nn.Module, pretrained: Model | None) -> Callable[[jax.Array], Any]:
    """Return key -> parameters: the checkpoint's encoder and a new head.

    A pooler is new where the checkpoint has none, and left out where the model has none.
    """

    def init(key: jax.Array) -> Any:
        params = dict(model.init(key, jnp.zeros((1, 1), jnp.int32))["params"])
        if pretrained is not None:
            taken = {name: part for name, part in pretrained.params["bert"].items() if name in params["bert"]}
            params["bert"] = {**params["bert"], **taken}
        return params

    return init
