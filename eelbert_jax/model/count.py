"""The number of parameters of a model, by the conventions that papers count with; shapes, no arrays."""

import math

import jax
import jax.numpy as jnp

from eelbert_jax.model.bert import BertForMaskedLM, BertForSequenceClassification
from eelbert_jax.model.config import BertConfig

CONVENTIONS = {
    "MLM": "no pooler; the decoder matrix counts only where it is tied to the table, as EELBERT counts.",
    "MLM+decoder": "the decoder matrix always counts, as it does in a pre-training checkpoint.",
    "2-class": "with pooler and classifier, without MLM head: what a fine-tuned model ships.",
}
"""What a count includes, by the convention's name."""


def count_parameters(config: BertConfig) -> dict[str, int]:
    """Return the number of parameters of a model by convention; `config.num_labels` is 2 in "2-class".

    Source: EELBERT, section 4 ("MLM").
    """
    masked_lm = _shapes(BertForMaskedLM(config))
    classifier = _shapes(BertForSequenceClassification(config))
    decoder = 0 if config.has_trained_table else _total(masked_lm["cls"]["predictions"]["decoder"])
    with_decoder = _total(masked_lm)
    return dict(zip(CONVENTIONS, (with_decoder - decoder, with_decoder, _total(classifier)), strict=True))


def _shapes(model: BertForMaskedLM | BertForSequenceClassification) -> dict:
    """Return the model's parameters as shapes."""
    input_ids = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), input_ids)["params"]


def _total(shapes: dict) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
