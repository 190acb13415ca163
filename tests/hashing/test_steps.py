"""The JAX hash: the bits of NumPy's and of big-integer Python's, eager, jitted and vmapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.errors import UserError
from eelbert_jax.hashing import steps as hashing
from eelbert_jax.hashing.reference import code_points, hash_table, reference_embedding, reference_signatures
from eelbert_jax.hashing.spec import PRESETS, HashSpec, hash_seeds, random_hash_spec, random_signatures
from support.hash_truth import MODULI, MORE_OPTIONS, bits, true_arrays, true_table


def jnp_embedding(signatures, counts, d, spec):
    return hashing.embed_signatures(
        jnp.asarray(signatures), jnp.asarray(counts), jnp.asarray(hash_seeds(spec, d)), spec
    )


jitted_embedding = jax.jit(jnp_embedding, static_argnums=(2, 3))


@pytest.fixture(scope="module")
def tokens(vocabulary_file):
    """Every token of bert-base-uncased."""
    return vocabulary_file.read_text("utf-8").removesuffix("\n").split("\n")


@pytest.mark.parametrize("preset", PRESETS)
def test_accounts_of_the_whole_vocabulary_agree(tokens, preset):
    """Big-integer Python == NumPy == JAX eager == JAX jit and vmap, integers and then the bits of vectors.

    At d = 6 each part has its least width. Entries do not depend on each other, and at d = 128 the truth
    would take a minute; the published widths are below, on fewer tokens.
    """
    spec, d, (characters, lengths) = PRESETS[preset], 6, code_points(tokens)
    truth, true_counts = true_arrays(tokens, spec, characters.shape[1])
    signatures = {"numpy": reference_signatures(spec, characters, lengths)}
    vectors = {"numpy": hash_table(spec, tokens, d)}
    if spec.runs_on_the_fly:
        eager = jax.vmap(lambda token, length: hashing.token_signatures(token, length, spec))
        signatures["eager"] = eager(jnp.asarray(characters), jnp.asarray(lengths))
        signatures["jit"] = jax.jit(eager)(characters, lengths)
        vectors["jit, from characters"] = hashing.embed_strings(characters, lengths, spec, d)
    for name, (grams, counts) in signatures.items():
        np.testing.assert_array_equal(grams, truth, err_msg=name)
        np.testing.assert_array_equal(counts, true_counts, err_msg=name)

    expected = bits(true_table(tokens, d, spec))
    for name, account in vectors.items():
        np.testing.assert_array_equal(bits(account), expected, err_msg=name)
    if spec.runs_on_the_fly:
        # Op by op on every 60th token: all of them would take longer than everything else here.
        eager_vectors = jnp_embedding(truth[::60], true_counts[::60], d, spec)
        np.testing.assert_array_equal(bits(eager_vectors), expected[::60])


@pytest.mark.parametrize("d", [128, 768])
def test_published_widths_agree_from_signatures(tokens, d):
    some, spec = tokens[::500], HashSpec()
    truth = bits(true_table(some, d, spec))
    jitted = jitted_embedding(*true_arrays(some, spec, 18), d, spec)
    for vectors in (hash_table(spec, some, d), jitted):
        np.testing.assert_array_equal(bits(vectors), truth)


def test_the_whole_table_at_128_is_the_same_from_characters(tokens):
    spec, (characters, lengths) = HashSpec(), code_points(tokens)
    on_the_fly = hashing.embed_strings(characters, lengths, spec, 128)
    np.testing.assert_array_equal(bits(on_the_fly), bits(hash_table(spec, tokens, 128)))


def test_one_other_signature_is_seen():
    spec = HashSpec()
    signatures, counts = true_arrays(["running", "runner"], spec, 7)
    before = jitted_embedding(signatures, counts, 128, spec)
    other = signatures.copy()  # the first call may still read the array: JAX takes it as it is on a CPU
    other[1, 2, 3] += 1  # the fourth trigram of the second word, by the least amount
    after = jitted_embedding(other, counts, 128, spec)
    changed = bits(before) != bits(after)
    assert not changed[0].any()
    assert not changed[1, :64].any()
    # A change of seed / 2^31 / 4 may drown in the rounding of a sum, in few entries.
    assert changed[1, 64:].mean() > 0.9


@pytest.mark.parametrize(
    "spec",
    # One modulus of each kind of product, at the ends of its range.
    [
        *(HashSpec(bucket_size=modulus, base=2**32 - 17, max_gram=2) for modulus in (2, 3, 2**16 - 1, 2**20)),
        MORE_OPTIONS,
    ],
    ids=lambda spec: f"B={spec.bucket_size},N={spec.max_gram}",
)
def test_jax_agrees_with_numpy_for_any_modulus_that_runs_on_the_fly(spec):
    @settings(max_examples=25)
    @given(strings=st.lists(st.text(max_size=5), min_size=4, max_size=4))
    def compare(strings):
        strings = [*strings, "##ing"]  # five characters: one shape, so one compilation
        got = hashing.embed_strings(*code_points(strings), spec, 15)
        np.testing.assert_array_equal(bits(got), bits(hash_table(spec, strings, 15)))

    compare()


def test_padding_adds_nothing():
    characters, lengths = code_points(["night", "a", ""])
    wider = np.pad(characters, ((0, 0), (0, 9)))
    for spec in (HashSpec(), MORE_OPTIONS):
        np.testing.assert_array_equal(
            bits(hashing.embed_strings(wider, lengths, spec, 20)),
            bits(hash_table(spec, ["night", "a", ""], 20)),
        )


def test_batches_have_any_shape():
    characters, lengths = code_points(["one", "two", "three", "four", "five", "six"])
    flat = hashing.embed_strings(characters, lengths, HashSpec(), 16)
    stacked = hashing.embed_strings(characters.reshape(2, 3, -1), lengths.reshape(2, 3), HashSpec(), 16)
    np.testing.assert_array_equal(bits(stacked).reshape(6, 16), bits(flat))


def test_the_random_hash_knows_no_spelling():
    spec = HashSpec()
    signatures, counts = random_signatures(spec, 2000)
    assert len(np.unique(signatures)) == 2000
    random = random_hash_spec(spec)
    vectors = reference_embedding(random, signatures, counts, 128)
    np.testing.assert_array_equal(bits(jnp_embedding(signatures, counts, 128, random)), bits(vectors))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[np.triu_indices(2000, 1)]
    # Independent vectors of 128 entries: mean 0, standard deviation 1 / sqrt(128) = 0.088.
    assert abs(cosines.mean()) < 0.005
    assert cosines.std() == pytest.approx(128**-0.5, rel=0.05)
    assert abs(vectors).max() <= 1
    assert vectors.std() == pytest.approx(3**-0.5, rel=0.02)
    other, _ = random_signatures(HashSpec(seed=43), 2000)
    assert (other != signatures).mean() > 0.99


def test_an_explicit_split():
    spec = HashSpec(split=(0, 4, 12), whole_token_width=4)
    assert spec.widths(20) == (0, 4, 12, 4)
    words = ["running", "a"]
    np.testing.assert_array_equal(
        bits(hashing.embed_strings(*code_points(words), spec, 20)), bits(hash_table(spec, words, 20))
    )


@pytest.mark.parametrize("modulus", MODULI)
def test_what_runs_on_the_fly(modulus):
    spec = HashSpec(bucket_size=modulus)
    if modulus.bit_count() == 1 or modulus < 2**16:
        hashing.require_on_the_fly(spec)
    else:
        with pytest.raises(UserError, match=r"cached.*power of two"):
            hashing.require_on_the_fly(spec)
        with pytest.raises(UserError, match="do not fit 32 bits"):
            hashing.embed_strings(*code_points(["a"]), spec, 16)
