"""The parameter count is that of the modules: every size, embedding and head."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from eelbert_jax.model import bert
from eelbert_jax.model.config import EMBEDDINGS, SIZES, size_of, sized
from eelbert_jax.model.count import count_parameters

HEADS = {
    "MLM+decoder": bert.BertForMaskedLM,
    "2-class": bert.BertForSequenceClassification,
    "tagging": bert.BertForTokenClassification,
}


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]


def total(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_formula_counts_what_the_modules_make(size, embedding):
    config = sized(
        size,
        embedding=embedding,
        vocab_size=1009,
        max_position_embeddings=37,
        type_vocab_size=3,
        num_labels=5,
    )
    counts = count_parameters(config)
    made = {convention: shapes(head(config)) for convention, head in HEADS.items()}
    assert {name: counts[name] for name in HEADS} == {name: total(tree) for name, tree in made.items()}
    decoder = 0 if config.ties_decoder else total(made["MLM+decoder"]["cls"]["predictions"]["decoder"])
    assert counts["MLM"] == counts["MLM+decoder"] - decoder


def test_the_projection_of_a_wide_hash_is_counted():
    narrow, wide = (sized("minialbert", vocab_size=1009, hash_width=width) for width in (None, 512))
    assert total(shapes(bert.BertForMaskedLM(wide))) == count_parameters(wide)["MLM+decoder"]
    difference = {count_parameters(wide)[name] - count for name, count in count_parameters(narrow).items()}
    assert difference == {512 * 128}


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "xlnet"])
def test_other_encoders_are_counted(architecture):
    config = sized("micro", embedding="table", vocab_size=1009, architecture=architecture, type_vocab_size=0)
    heads = {name: head for name, head in HEADS.items() if (architecture, name) != ("xlnet", "MLM+decoder")}
    counts = count_parameters(config)
    assert {name: counts[name] for name in heads} == {
        name: total(shapes(head(config))) for name, head in heads.items()
    }


def test_sizes_are_found_by_their_fields():
    assert size_of(dataclasses.asdict(sized("mini"))) == "mini"
    assert size_of(dataclasses.asdict(sized("mini", num_hidden_layers=5))) is None
    assert size_of(dataclasses.asdict(sized("base", architecture="roberta"))) is None
