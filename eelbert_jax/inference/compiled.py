"""The compiled programs of a model that answers, one for each length of rows, and what feeds them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets.encoding import WORTH_A_BATCH, Encoded, eval_batches, gather
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel
from eelbert_jax.model.heads import mean_pool, row_state

BATCH_SIZE = 32


def outputs(
    step: Callable[..., Any], encoded: Encoded, batch_size: int = BATCH_SIZE
) -> Iterator[tuple[np.ndarray, Any]]:
    """Yield some rows, int64 [n], and the outputs of `step` for them, until every row had its turn."""
    if not len(encoded):
        return
    for batch in eval_batches(encoded, 1 if len(encoded) == 1 else batch_size, WORTH_A_BATCH):
        outputs = jax.device_get(step(*gather(encoded, batch.indices, batch.length)))
        num_real = np.count_nonzero(batch.weights)  # the rest fills up
        yield batch.indices[:num_real], jax.tree.map(lambda leaf, n=num_real: leaf[:n], outputs)


@functools.partial(jax.jit, static_argnums=0)
def head_outputs(
    model: nn.Module,
    variables: Any,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    token_type_ids: jax.Array,
) -> jax.Array:
    """Return what a model with its head says: float32 [B, C], or [B, L, C] of a tagger."""
    return model.apply(variables, input_ids, attention_mask, token_type_ids)  # type: ignore[return-value]


@functools.partial(jax.jit, static_argnums=(0, 1))
def vectors(
    model: BertModel,
    pooling: str,
    variables: Any,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    token_type_ids: jax.Array,
) -> jax.Array:
    """Return float32 [B, D]."""
    hidden: Any = model.apply(variables, input_ids, attention_mask, token_type_ids, deterministic=True)
    if pooling == "cls":
        return row_state(model.config, hidden, attention_mask).astype(jnp.float32)
    return mean_pool(hidden, attention_mask)


@functools.partial(jax.jit, static_argnums=(0, 1))
def best_tokens(
    model: bert.BertForMaskedLM,
    count: int,
    variables: Any,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    positions: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return probabilities float32 and ids int32 of the best tokens at some positions, both [B, P, count]."""
    inputs: Any = model.apply(variables, input_ids, positions, attention_mask, method=model.decoder_inputs)
    features, decoder, bias = inputs
    logits = jnp.einsum(
        "bpd,vd->bpv", features, decoder.astype(features.dtype), preferred_element_type=jnp.float32
    )
    shares, tokens = jax.lax.top_k(jax.nn.softmax(logits + bias[None, None, :]), count)
    return shares, tokens
