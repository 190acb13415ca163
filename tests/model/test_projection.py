"""A wide hash and its projection: the same values and gradients however they are computed, and refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.inference.load import load
from eelbert_jax.model import bert, projection
from eelbert_jax.model.config import BertConfig, identity, model_name, name_of, sized
from eelbert_jax.model.embeddings import embedding_constants, make_token_embedder, token_vectors
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary
from support import models

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *(f"word{i}" for i in range(195))))
# More distinct tokens than a block has, many of them twice, and no multiple of the block.
IDS = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY.size, (7, 29)))
WIDE = sized("micro", vocab_size=VOCABULARY.size, hash_width=96)
SPECS = {
    "default": HashSpec(),
    "whole_token": HashSpec(whole_token_width=48),
    "four_grams": HashSpec(max_gram=4),
}
WAYS = {
    "by_token": (projection._project_distinct, projection._gradient_distinct),
    "by_position": (projection._project_positions, projection._gradient_positions),
}


def normal(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape).astype(np.float32))


def read(table, ids):
    return jnp.take(table, ids, axis=0)


def variables(config, matrix=None):
    matrix = normal(config.hash_width, config.embedding_width) if matrix is None else matrix
    return {"params": {"projection": matrix}, "constants": embedding_constants(config, VOCABULARY)}


def embed(config, values, ids=IDS):
    return jax.jit(make_token_embedder(config).apply)(values, ids)


@pytest.mark.parametrize("way", WAYS)
def test_values_and_gradients_are_those_of_the_plain_product(way):
    table, matrix, weights = normal(VOCABULARY.size, 96), normal(96, 32), normal(*IDS.shape, 32)
    project, gradient = WAYS[way]
    plain = jax.grad(lambda m: (weights * (table[IDS] @ m)).sum())(matrix)
    project, gradient = (jax.jit(functools.partial(one, read)) for one in (project, gradient))
    projected = project(table, matrix, IDS)
    np.testing.assert_allclose(projected, table[IDS] @ matrix, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(
        gradient(table, IDS, weights.reshape(IDS.size, -1)), plain, rtol=1e-5, atol=1e-3
    )
    # Negative control: one position that reads another token is seen in both.
    moved = IDS.at[3, 4].set((IDS[3, 4] + 1) % VOCABULARY.size)
    assert abs(project(table, matrix, moved) - projected).max() > 1
    assert abs(gradient(table, moved, weights.reshape(IDS.size, -1)) - plain).max() > 0.1


def test_the_model_has_that_value_and_that_gradient_and_none_of_the_table():
    table, matrix, weights = normal(VOCABULARY.size, 96), normal(96, 32), normal(*IDS.shape, 32)

    def loss(matrix, table):
        return (weights * projection.project_tokens(read, table, matrix, IDS)).sum()

    def plain(matrix, table):
        return (weights * (table[IDS] @ matrix)).sum()

    found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(matrix, table)
    value, (gradient, _) = jax.value_and_grad(plain, argnums=(0, 1))(matrix, table)
    np.testing.assert_allclose(found[0], value, rtol=1e-4)
    np.testing.assert_allclose(found[1][0], gradient, rtol=1e-5, atol=1e-3)
    assert not found[1][1].any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", SPECS)
def test_both_modes_give_the_same_bits(spec, dtype):
    config = dataclasses.replace(WIDE, hash=SPECS[spec], dtype=dtype)
    found = [
        embed(of, variables(of)).astype(jnp.float32)
        for of in (dataclasses.replace(config, embedding_mode=mode) for mode in ("cached", "on_the_fly"))
    ]
    assert found[0].shape == (*IDS.shape, 32)
    np.testing.assert_array_equal(*found)
    if dtype == "float32":
        expected = embedding_constants(config, VOCABULARY)["table"][IDS] @ normal(96, 32)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5)


def test_a_bfloat16_model_sums_a_token_s_gradients_in_float32():
    config, ids = dataclasses.replace(WIDE, dtype="bfloat16"), jnp.full((1, 1000), 5)
    values = variables(config)

    def loss(matrix):
        return embed(config, {**values, "params": {"projection": matrix}}, ids).astype(jnp.float32).sum()

    gradient = jax.grad(loss)(values["params"]["projection"])
    hashed = values["constants"]["table"][5]
    # Counted in bfloat16, 1000 positions are 256.
    np.testing.assert_allclose(gradient[:, 0], 1000 * hashed, rtol=0.02, atol=1)


@pytest.mark.parametrize("mode", ["cached", "on_the_fly"])
def test_an_id_outside_is_nan_and_no_other_token(mode):
    config = dataclasses.replace(WIDE, embedding_mode=mode)
    ids = jnp.array([[VOCABULARY.size - 1, VOCABULARY.size, 2**31 - 1, -1]])
    found = embed(config, variables(config), ids)
    assert np.isnan(found).any(axis=-1).tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("embedding", ["ngram_hash", "random_hash"])
def test_what_is_made_at_load_goes_before_what_is_computed(embedding):
    config = dataclasses.replace(WIDE, embedding=embedding)
    values = variables(config)
    vectors = token_vectors(config, VOCABULARY, values["params"]["projection"])
    assert vectors.shape == (VOCABULARY.size, 32)
    found = embed(config, {**values, "constants": {"vectors": vectors}})
    np.testing.assert_allclose(found, embed(config, values), rtol=1e-5, atol=1e-5)
    # Negative control: nothing is computed beside it.
    assert not embed(config, {**values, "constants": {"vectors": 0 * vectors}}).any()


def test_a_loaded_model_answers_as_the_trained_one(tmp_path):
    config = dataclasses.replace(WIDE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = dataclasses.replace(config, vocab_size=16)
    model = bert.BertForMaskedLM(config)
    params = models.params_of(model)
    models.save(tmp_path, "checkpoints", params, identity(config, models.VOCABULARY, True), {})
    loaded = load(tmp_path)
    embedder = loaded.constants["bert"]["embeddings"]["word_embeddings"]
    assert {name: leaf.shape for name, leaf in embedder.items()} == {"vectors": (16, 32)}
    ids = jnp.arange(16)[None]
    apply = jax.jit(model.apply)
    expected = apply({"params": params, "constants": bert.constants(config, models.VOCABULARY)}, ids)
    found = apply({"params": loaded.params, "constants": loaded.constants}, ids)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(embedding="table"), "hash_width=96 goes with a hashed embedding, got embedding='table'"),
        (dict(embedding="hash_initialized"), "goes with a hashed embedding"),
        (dict(hash_width=16), "hash_width=16 is less than the embedding's width, 32"),
        (dict(hash_width=0), "hash_width must be at least 1, got 0"),
    ],
)
def test_widths_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(WIDE, **changes)


def test_parts_that_do_not_fit_the_hash_are_refused():
    spec = HashSpec(whole_token_width=96)
    with pytest.raises(UserError, match="An embedding of 96 dimensions is too narrow"):
        make_token_embedder(dataclasses.replace(WIDE, hash=spec))


def test_the_embedding_s_own_width_is_no_projection():
    plain = dataclasses.replace(WIDE, hash_width=32)
    assert plain == dataclasses.replace(WIDE, hash_width=None)
    assert "hash_width" not in plain.to_identity()
    assert make_token_embedder(plain).init(jax.random.key(0), IDS) == {}
    assert BertConfig.from_identity(WIDE.to_identity()).hash_width == 96


def test_tables_name_the_width():
    assert model_name("tiny", "ngram_hash", 1024) == "EELBERT-tiny (W=1024)"
    assert model_name("tiny", "random_hash", 512) == "BERT-tiny (random_hash, W=512)"
    assert model_name("uno", "ngram_hash") == "UNO-EELBERT"


def test_a_name_says_what_is_not_as_published():
    tiny = sized("tiny", embedding="ngram_hash", hash_width=1024)
    assert name_of(tiny) == "EELBERT-tiny (W=1024)"
    assert name_of(dataclasses.replace(tiny, intermediate_size=1024)) == "EELBERT-L2-H128-F1024 (W=1024)"
    shared = dataclasses.replace(tiny, num_hidden_layers=4, num_hidden_groups=1)
    assert name_of(shared) == "EELBERT-L1x4-H128 (W=1024)"
