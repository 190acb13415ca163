"""Embedders: the same bits in both modes, no parameter and no gradient where hashed, and clear refusals."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.reference import code_points, hash_table
from eelbert_jax.hashing.spec import PRESETS, HashSpec
from eelbert_jax.hashing.steps import embed_strings
from eelbert_jax.model.config import BertConfig, sized
from eelbert_jax.model.embeddings import embedding_constants, initial_table, make_token_embedder
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary

WORDS = ("run", "running", "##ning", "walk", "walked", "a", "000", "0000", "naïve", "nationwide")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
IDS = jnp.array([[2, 5, 6, 7, 3, 0], [2, 13, 14, 4, 3, 9]])
HASHED = ("ngram_hash", "random_hash")
OTHER_HASHES = [
    HashSpec(bucket_size=65521, scale=0.3),
    HashSpec(bucket_size=2**16, whole_token_width=4, scale=0.7, continuation="strip", short_tokens="zero"),
    HashSpec(split=(0, 16, 16), seed=9),
]


def config(**changes):
    return sized("micro", **{"vocab_size": VOCABULARY.size, **changes})


def bits(array):
    return np.asarray(array).view(np.dtype(f"u{array.dtype.itemsize}"))


def embed(of, ids=IDS, vocabulary=VOCABULARY):
    constants = embedding_constants(of, vocabulary)
    return jax.jit(make_token_embedder(of).apply)({"constants": constants}, ids)


def parameters(of, constants):
    """Make the parameters as training does: with the constants at hand, and without keeping them."""
    embedder = make_token_embedder(of)
    variables = {"constants": constants}
    apply = jax.jit(functools.partial(embedder.apply, mutable=["params"]))
    return apply(variables, IDS, rngs={"params": jax.random.key(0)})[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("embedding", HASHED)
def test_both_modes_give_the_same_bits(embedding, dtype):
    cached, on_the_fly = (
        embed(config(embedding=embedding, embedding_mode=mode, dtype=dtype))
        for mode in ("cached", "on_the_fly")
    )
    assert cached.dtype == on_the_fly.dtype == dtype
    assert cached.shape == (2, 6, 32)
    np.testing.assert_array_equal(bits(cached), bits(on_the_fly))


@pytest.mark.parametrize("spec", OTHER_HASHES, ids=range(len(OTHER_HASHES)))
def test_both_modes_give_the_same_bits_under_options(spec):
    of = config(hash=spec)
    expected = hash_table(spec, VOCABULARY.tokens, 32)[np.asarray(IDS)]
    np.testing.assert_array_equal(bits(embed(of)), bits(expected))
    np.testing.assert_array_equal(
        bits(embed(dataclasses.replace(of, embedding_mode="on_the_fly"))), bits(expected)
    )


def test_both_modes_agree_on_the_whole_published_vocabulary(vocabulary_file):
    vocabulary = load_vocabulary(vocabulary_file)
    ids = jnp.arange(vocabulary.size).reshape(2, -1)
    cached, on_the_fly = (
        jax.jit(embedder.apply)({"constants": embedding_constants(of, vocabulary)}, ids)
        for of in (BertConfig(embedding_mode=mode) for mode in ("cached", "on_the_fly"))
        for embedder in [make_token_embedder(of)]
    )
    assert cached.shape == (2, 15261, 128)
    np.testing.assert_array_equal(bits(cached), bits(on_the_fly))


class AddAfterwards(nn.Module):
    """What a model does with an embedding: add to it, which compilers like to fuse with a product before."""

    config: BertConfig

    @nn.compact
    def __call__(self, ids, position):
        return make_token_embedder(self.config, "word_embeddings")(ids) + position


@pytest.mark.parametrize("spec", [HashSpec(scale=0.3), HashSpec(bucket_size=65521)], ids=["scale", "modulus"])
def test_no_compiler_fuses_the_mean_with_what_follows(spec):
    position = jax.random.normal(jax.random.key(1), (1, 1, 32))
    sums = []
    for mode in ("cached", "on_the_fly"):
        of = config(hash=spec, embedding_mode=mode)
        constants = {"word_embeddings": embedding_constants(of, VOCABULARY)}
        sums.append(jax.jit(AddAfterwards(of).apply)({"constants": constants}, IDS, position))
    np.testing.assert_array_equal(bits(sums[0]), bits(sums[1]))


def test_strings_outside_the_vocabulary_have_the_vectors_they_would_have_inside():
    strings = ["running", "antidisestablishmentarianism", "", "走る", "##ly"]
    got = embed_strings(*code_points(strings), HashSpec(), 32)
    np.testing.assert_array_equal(bits(got), bits(hash_table(HashSpec(), strings, 32)))
    np.testing.assert_array_equal(bits(got[0]), bits(embed(config())[0, 2]))


@pytest.mark.parametrize("mode", ["cached", "on_the_fly"])
@pytest.mark.parametrize("embedding", HASHED)
def test_a_hashed_embedder_has_no_parameter_and_no_gradient(embedding, mode):
    of = config(embedding=embedding, embedding_mode=mode)
    embedder, constants = make_token_embedder(of), embedding_constants(of, VOCABULARY)
    assert embedder.init(jax.random.key(0), IDS) == {}
    assert parameters(of, constants) == {}

    def loss(floats):
        rest = {name: value for name, value in constants.items() if name not in floats}
        return (embedder.apply({"constants": {**floats, **rest}}, IDS) ** 2).sum()

    floats = {name: jnp.asarray(value) for name, value in constants.items() if value.dtype == np.float32}
    assert list(floats) == (["table"] if mode == "cached" else [])
    value, gradients = jax.jit(jax.value_and_grad(loss))(floats)
    assert value > 1
    assert not any(gradient.any() for gradient in gradients.values())


def test_a_trained_table_has_a_gradient_and_bert_s_distribution():
    of = config(embedding="table", vocab_size=2000)
    assert embedding_constants(of, VOCABULARY) == {}
    params = parameters(of, {})["params"]
    assert params["embedding"].shape == (2000, 32)
    assert abs(params["embedding"]).max() <= 0.04
    # A normal distribution cut at two standard deviations keeps 0.88 of its own.
    assert float(params["embedding"].std()) == pytest.approx(0.88 * 0.02, rel=0.02)
    embedder = make_token_embedder(of)
    gradient = jax.grad(lambda params: embedder.apply({"params": params}, IDS).sum())(params)["embedding"]
    counts = np.bincount(np.asarray(IDS).ravel(), minlength=2000)
    np.testing.assert_array_equal(gradient, np.repeat(counts[:, None], 32, axis=1))


def test_a_bfloat16_model_sums_the_table_s_gradient_in_float32():
    of = config(embedding="table", dtype="bfloat16")
    ids = jnp.full((1, 1000), 5)
    embedder, params = make_token_embedder(of), parameters(of, {})["params"]
    gradient = jax.grad(lambda params: embedder.apply({"params": params}, ids).astype(jnp.float32).sum())(
        params
    )
    assert gradient["embedding"][5, 0] == 1000  # bfloat16 stops counting at 256


def test_a_hash_initialized_table_is_trained_and_needs_no_constants():
    of = config(embedding="hash_initialized")
    assert embedding_constants(of, VOCABULARY) == {}
    table = initial_table(of, VOCABULARY)
    np.testing.assert_array_equal(bits(table), bits(hash_table(HashSpec(), VOCABULARY.tokens, 32)))
    embedder, params = make_token_embedder(of), {"embedding": jnp.asarray(table)}
    np.testing.assert_array_equal(bits(embedder.apply({"params": params}, IDS)), bits(embed(config())))
    gradient = jax.grad(lambda params: embedder.apply({"params": params}, IDS).sum())(params)["embedding"]
    assert gradient[5].any()


def test_a_hash_initialized_table_whose_start_is_forgotten_is_not_a_number():
    params = parameters(config(embedding="hash_initialized"), {})["params"]
    assert jnp.isnan(params["embedding"]).all()


def test_the_random_hash_takes_seed_and_scale_and_no_spelling():
    of = config(embedding="random_hash")
    table = initial_table(of, VOCABULARY)
    respelled = Vocabulary((*SPECIAL_TOKENS, *(word[::-1] + "x" for word in WORDS)))
    np.testing.assert_array_equal(initial_table(of, respelled), table)
    reseeded = initial_table(dataclasses.replace(of, hash=HashSpec(seed=1)), VOCABULARY)
    assert (reseeded != table).all()
    scaled = initial_table(dataclasses.replace(of, hash=HashSpec(scale=0.5, max_gram=2)), VOCABULARY)
    np.testing.assert_array_equal(scaled, table / 2)


@pytest.mark.parametrize(
    ("embedding", "mode"), [("table", "cached"), ("ngram_hash", "cached"), ("ngram_hash", "on_the_fly")]
)
def test_an_id_outside_is_nan_and_never_a_neighbour(embedding, mode):
    of = config(embedding=embedding, embedding_mode=mode)
    constants = embedding_constants(of, VOCABULARY)
    ids = jnp.array([[VOCABULARY.size - 1, VOCABULARY.size, 2**31 - 1, -1]])
    variables = {"constants": constants, **parameters(of, constants)}
    vectors = jax.jit(make_token_embedder(of).apply)(variables, ids)
    assert np.isnan(vectors).all(axis=-1).tolist() == [[False, True, True, True]]
    assert not np.isnan(vectors[0, 0]).any()


@pytest.mark.parametrize("mode", ["cached", "on_the_fly"])
def test_missing_constants_are_refused(mode):
    embedder = make_token_embedder(config(embedding_mode=mode))
    with pytest.raises(UserError, match="constants"):
        embedder.apply({}, IDS)
    with pytest.raises(UserError, match="constants"):
        embedder.apply({"params": {}}, IDS, mutable=["params"])


@pytest.mark.parametrize("mode", ["cached", "on_the_fly"])
def test_constants_of_another_model_are_refused(mode):
    of = config(embedding_mode=mode)
    constants = embedding_constants(of, VOCABULARY)
    for other in (dataclasses.replace(of, vocab_size=99), dataclasses.replace(of, embedding="random_hash")):
        if mode == "on_the_fly" or other.embedding != "random_hash":
            with pytest.raises(UserError, match="expects"):
                make_token_embedder(other).apply({"constants": constants}, IDS)


def test_a_vocabulary_of_another_size_is_refused():
    with pytest.raises(UserError, match=r"15 tokens.*vocab_size=16"):
        embedding_constants(config(vocab_size=16), VOCABULARY)


@pytest.mark.parametrize("embedding", ["ngram_hash", "hash_initialized"])
def test_a_split_for_another_width_is_refused(embedding):
    with pytest.raises(UserError, match="add up to"):
        make_token_embedder(config(embedding=embedding, hash=HashSpec(split=(21, 43, 64))))


def test_a_large_modulus_runs_cached_and_is_refused_on_the_fly():
    reference = PRESETS["reference"]
    expected = hash_table(reference, VOCABULARY.tokens, 32)[np.asarray(IDS)]
    np.testing.assert_array_equal(bits(embed(config(hash=reference))), bits(expected))
    with pytest.raises(UserError, match="embedding_mode='cached'"):
        make_token_embedder(config(hash=reference, embedding_mode="on_the_fly"))
    make_token_embedder(config(hash=reference, embedding_mode="on_the_fly", embedding="random_hash"))


def test_shapes_need_no_constants():
    for embedding, count in {
        "table": 480,
        "hash_initialized": 480,
        "ngram_hash": 0,
        "random_hash": 0,
    }.items():
        for mode in ("cached", "on_the_fly"):
            embedder = make_token_embedder(config(embedding=embedding, embedding_mode=mode))
            variables = jax.eval_shape(embedder.init, jax.random.key(0), IDS)
            assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == count
