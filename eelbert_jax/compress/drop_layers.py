"""Drop whole layers of an encoder; the rest is fine-tuned as ever. Source: Sajjad et al. 2020, section 3.

Layers are numbered from 1, the one next to the embeddings, as in the paper. Nothing is masked: the layers
that are left are numbered anew, and the configuration says how many they are.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets.encoding import Encoded
from eelbert_jax.errors import UserError
from eelbert_jax.inference.compiled import outputs
from eelbert_jax.inference.predict import Model
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.encoder import unstack_layers
from eelbert_jax.model.heads import row_state

CONTRIBUTION = "contribution"
STRATEGIES = ("top", "even-alternate", "odd-alternate", "symmetric", "bottom", CONTRIBUTION)
"""Of Poor Man's BERT; `contribution` alone looks at the model."""


def layers_to_drop(strategy: str, num_layers: int, num_dropped: int) -> tuple[int, ...]:
    """Return the layers that a strategy drops; `contribution` goes by cosines: `least_contributing`.

    Raises:
      UserError: the strategy cannot drop so many of so few.
    """
    assert strategy in STRATEGIES
    assert strategy != CONTRIBUTION
    if not 1 <= num_dropped < num_layers:
        raise UserError(
            f"--num_layers={num_dropped} layers cannot be dropped from {num_layers}: drop 1 to "
            f"{num_layers - 1}; the number says how many go, not how many stay."
        )
    layers = range(1, num_layers + 1)
    if strategy == "top":
        return tuple(layers[-num_dropped:])
    if strategy == "bottom":
        return tuple(layers[:num_dropped])
    if strategy == "symmetric":
        if (num_layers - num_dropped) % 2:
            raise UserError(
                f"symmetric keeps as many layers at the top as at the bottom, but {num_layers} - "
                f"{num_dropped} = {num_layers - num_dropped} is odd: drop one layer more, or one less."
            )
        kept = (num_layers - num_dropped) // 2
        return tuple(layers[kept : num_layers - kept])
    alternate = [layer for layer in layers if layer % 2 == (strategy == "odd-alternate")]
    if num_dropped > len(alternate):
        raise UserError(
            f"{strategy} drops every other layer, of {num_layers} at most {len(alternate)}; got "
            f"--num_layers={num_dropped}."
        )
    return tuple(alternate[-num_dropped:])


def least_contributing(similarities: Sequence[float], threshold: float) -> tuple[int, ...]:
    """Return the layers, from 1, that change [CLS] so little that its cosine exceeds `threshold`.

    Raises:
      UserError: that is none of them, or all.
    """
    dropped = tuple(i for i, cosine in enumerate(similarities, start=1) if cosine > threshold)
    if not 0 < len(dropped) < len(similarities):
        values = ", ".join(f"{i}: {cosine:.3f}" for i, cosine in enumerate(similarities, start=1))
        raise UserError(
            f"--tau={threshold:g} drops {len(dropped)} of {len(similarities)} layers. Their cosines are "
            f"{values}; choose tau between them, to drop those above."
        )
    return dropped


def cls_similarities(model: Model, encoded: Encoded) -> np.ndarray:
    """Return for every layer the mean cosine of [CLS] before and after it, float64 [T]."""
    step = functools.partial(_cls_cosines, model.config, model.encoder_variables)
    return np.concatenate([cosines for _, cosines in outputs(step, encoded)]).mean(axis=0, dtype=np.float64)


@functools.partial(jax.jit, static_argnums=0)
def _cls_cosines(
    config: BertConfig,
    variables: Any,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    token_type_ids: jax.Array,
) -> jax.Array:
    """Return float32 [B, T]."""
    _, collected = BertModel(config, with_pooler=False).apply(
        variables, input_ids, attention_mask, token_type_ids, deterministic=True, mutable=["intermediates"]
    )
    states = bert.encoder_states(config, {"bert": collected["intermediates"]}).hidden_states
    of_rows = [row_state(config, hidden, attention_mask).astype(jnp.float32) for hidden in states]
    cls = jnp.stack(of_rows, axis=1)  # [B, T + 1, D]
    directions = cls / jnp.linalg.norm(cls, axis=-1, keepdims=True)
    return jnp.sum(directions[:, :-1] * directions[:, 1:], axis=-1)


def without_layers(
    config: BertConfig, params: Mapping[str, Any], dropped: Sequence[int]
) -> tuple[BertConfig, dict[str, Any]]:
    """Return what is left of a model, its layers not stacked, whether they were or not.

    Raises:
      UserError: its layers share parameters.
    """
    if config.num_recursions > 1:
        raise UserError(
            f"This model applies {config.num_groups} shared layers {config.num_recursions} times each: none "
            "of them can go alone; train one with fewer recursions, or drop layers of one that shares none."
        )
    encoder = params["bert"]["encoder"]
    if config.scan_layers:
        encoder = unstack_layers(encoder)
    kept = kept_layers(config.num_hidden_layers, dropped)
    encoder = {f"layer_{new}": encoder[f"layer_{old - 1}"] for new, old in enumerate(kept)}
    config = dataclasses.replace(config, num_hidden_layers=len(kept), scan_layers=False)
    return config, {**params, "bert": {**params["bert"], "encoder": encoder}}


def kept_layers(num_layers: int, dropped: Sequence[int]) -> list[int]:
    """Return the layers that are left."""
    return [layer for layer in range(1, num_layers + 1) if layer not in dropped]
