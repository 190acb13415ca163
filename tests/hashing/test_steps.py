"""The hash against big-integer Python, written here from the paper's steps, and its properties."""

import dataclasses
import inspect
import itertools
import json
import shutil
import subprocess
import textwrap

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

MODULI = [
    2,
    3,
    255,
    256,
    65521,
    65535,
    65536,
    65537,
    10**9 + 7,
    2**31,
    2**31 + 11,
    2**32 - 5,
    2**32 - 1,
    2**32,
]
MORE_OPTIONS = HashSpec(
    continuation="strip", short_tokens="zero", scale=0.02, whole_token_width=5, max_gram=4, seed=7
)

REBLESS = (
    "The hash gives other bits than the released one. If that is an accident, find it: a checkpoint trained "
    "on one hash is worthless under another. If it is intended, change ALGORITHM in "
    "eelbert_jax/hashing/spec.py, so that old checkpoints are refused, and only then these values."
)


# The independent truth: Python integers and scalar float32, no array and nothing of the package.


def grams_of(token, i, spec):
    if spec.continuation == "strip" and token.startswith("##") and len(token) > 2:
        token = token[2:]
    if i == "whole":
        return [token]
    if len(token) < i:
        return [token] if spec.short_tokens == "whole" else []
    return [token[start : start + i] for start in range(len(token) - i + 1)]


def rolling_hash(gram, spec):
    value = 0
    for character in gram:
        value = (value * spec.base + ord(character)) % spec.bucket_size
    return value


def parts_of(spec):
    return [*range(1, spec.max_gram + 1)] + ["whole"] * (spec.whole_token_width > 0)


def true_signatures(token, spec):
    return [[rolling_hash(gram, spec) for gram in grams_of(token, i, spec)] for i in parts_of(spec)]


def true_table(tokens, d, spec):
    modulus, limit = spec.bucket_size, 1.0 if spec.scale is None else spec.scale
    signatures, seeds, columns = (
        [true_signatures(token, spec) for token in tokens],
        iter(true_seeds(spec, d)),
        [],
    )
    for part, width in enumerate(spec.widths(d)):
        weights = [limit * 2 / (modulus * len(grams[part])) if grams[part] else 0.0 for grams in signatures]
        for _ in range(width):
            seed, total = next(seeds), np.zeros(len(tokens), np.float32)
            centred = [
                [centre(gram * seed % modulus, modulus) for gram in grams[part]] for grams in signatures
            ]
            for one_gram_a_token in itertools.zip_longest(*centred, fillvalue=0):
                total += np.array(one_gram_a_token, np.float32)
            columns.append(
                np.clip(total * np.array(weights, np.float32), -np.float32(limit), np.float32(limit))
            )
    return np.stack(columns, axis=1)


def centre(residue, modulus):
    return residue - modulus if residue >= modulus - modulus // 2 else residue


def true_arrays(tokens, spec, columns):
    """Signatures as the package lays them out, uint32 [V, N', C], and counts int32 [V, N']."""
    by_token = [true_signatures(token, spec) for token in tokens]
    padded = [[part + [0] * (columns - len(part)) for part in parts] for parts in by_token]
    return np.array(padded, np.uint32), np.array([[*map(len, parts)] for parts in by_token], np.int32)


def split_mix_64(seed):
    mask, state = 2**64 - 1, seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def true_seeds(spec, d):
    modulus = spec.bucket_size
    power_of_two = modulus.bit_count() == 1
    upper = [z >> 32 for z, _ in zip(split_mix_64(spec.seed), range(d), strict=False)]
    return [(u % modulus) | 1 if power_of_two else 1 + u % (modulus - 1) for u in upper]


def bits(array):
    return np.asarray(array, np.float32).view(np.uint32)


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


@pytest.mark.parametrize("change", [{"seed": 43}, {"base": 37}, {"bucket_size": 2**32 - 5}, {"max_gram": 2}])
def test_another_function_is_seen(change):
    words = ["running", "##ing", "an"]  # of one character the base makes nothing
    changed = hash_table(HashSpec(**change), words, 128)
    assert (bits(changed) != bits(hash_table(HashSpec(), words, 128))).any(axis=1).all()


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


@st.composite
def specs(draw):
    max_gram = draw(st.integers(1, 5))
    return HashSpec(
        max_gram=max_gram,
        base=draw(st.integers(1, 2**32 - 1)),
        bucket_size=draw(st.one_of(st.sampled_from(MODULI), st.integers(2, 2**32))),
        seed=draw(st.integers(0, 2**64 - 1)),
        split=draw(st.sampled_from(["proportional", (3,) * max_gram])),
        continuation=draw(st.sampled_from(["keep", "strip"])),
        short_tokens=draw(st.sampled_from(["whole", "zero"])),
        scale=draw(st.sampled_from([None, 0.02, 3.0])),
        whole_token_width=draw(st.integers(0, 3)),
    )


any_strings = st.lists(
    st.one_of(st.text(max_size=9), st.sampled_from(["", "#", "##", "##a", "##ing"])), max_size=5
)


@given(spec=specs(), strings=any_strings)
def test_any_string_under_any_function_agrees_with_the_truth(spec, strings):
    d = 3 * spec.max_gram + spec.whole_token_width if isinstance(spec.split, tuple) else 20
    table = hash_table(spec, strings, d)
    assert table.dtype == np.float32
    assert table.shape == (len(strings), d)
    np.testing.assert_array_equal(hash_seeds(spec, d), true_seeds(spec, d))
    np.testing.assert_array_equal(bits(table), bits(true_table(strings, d, spec)))
    limit = 1.0 if spec.scale is None else np.float32(spec.scale)
    assert (abs(table) <= limit).all()


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


@given(prefix=st.text(max_size=12), first=st.text(max_size=5), second=st.text(max_size=5))
def test_tokens_share_the_signatures_of_a_common_prefix(prefix, first, second):
    spec = HashSpec()
    signatures, _ = reference_signatures(spec, *code_points([prefix + first, prefix + second]))
    for i in range(1, spec.max_gram + 1):
        shared = max(0, len(prefix) - i + 1)
        np.testing.assert_array_equal(signatures[0, i - 1, :shared], signatures[1, i - 1, :shared])


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


def test_a_character_is_a_code_point_and_not_a_byte():
    vectors = hash_table(HashSpec(), ["naïve", "\U0001f600", "\ud83d\ude00"], 128)
    assert true_arrays(["\U0001f600"], HashSpec(), 1)[1].tolist() == [[1, 1, 1]]
    assert (bits(vectors[1]) != bits(vectors[2])).any()


def test_marks_of_a_continuation():
    keep, strip = HashSpec(), HashSpec(continuation="strip")
    words = ["ing", "##ing", "##", "#ing", "##"]
    kept, stripped = (bits(hash_table(spec, words, 32)) for spec in (keep, strip))
    assert (kept[0] != kept[1]).any()
    np.testing.assert_array_equal(stripped[0], stripped[1])
    np.testing.assert_array_equal(stripped[2:], kept[2:])


def test_short_tokens_are_their_own_gram_or_have_none():
    whole, zero = (
        hash_table(HashSpec(), ["a"], 128)[0],
        hash_table(HashSpec(short_tokens="zero"), ["a"], 128)[0],
    )
    assert (whole != 0).all()
    np.testing.assert_array_equal(bits(zero[:21]), bits(whole[:21]))
    assert not zero[21:].any()


def test_the_whole_token_part_tells_repetitions_apart():
    for words in (["000", "0000"], ["...", "....", "....."]):
        plain = hash_table(HashSpec(), words, 128)
        np.testing.assert_allclose(plain, plain[:1].repeat(len(words), 0), rtol=0, atol=1e-6)
        apart = hash_table(HashSpec(whole_token_width=8), words, 128)
        assert abs(apart[0, :120] - apart[1, :120]).max() < 1e-6
        assert abs(apart[0, 120:] - apart[1, 120:]).max() > 0.1


def test_scale_multiplies():
    plain, scaled = (hash_table(HashSpec(scale=scale), ["running", "a"], 128) for scale in (None, 0.125))
    np.testing.assert_array_equal(bits(plain * np.float32(0.125)), bits(scaled))


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


def test_a_random_signature_depends_on_the_id_alone():
    few, many = (random_signatures(HashSpec(), size)[0] for size in (10, 1000))
    np.testing.assert_array_equal(few, many[:10])


def test_known_outputs_of_split_mix_64():
    # The values that the generator's other implementations publish for seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    spec = HashSpec(seed=1234567)
    assert hash_seeds(spec, 4).tolist() == [value >> 32 | 1 for value in published]


@pytest.mark.parametrize("modulus", MODULI)
def test_seeds_are_legal(modulus):
    seeds = hash_seeds(HashSpec(bucket_size=modulus, seed=2**64 - 1), 500)
    assert seeds.dtype == np.uint32
    assert seeds.min() >= 1
    assert seeds.max() <= modulus - 1
    assert (seeds % 2 == 1).all() or modulus.bit_count() > 1
    np.testing.assert_array_equal(seeds[:7], hash_seeds(HashSpec(bucket_size=modulus, seed=2**64 - 1), 7))


@pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: it runs the JavaScript of the docs"
)
def test_the_javascript_of_the_docstring():
    lines = inspect.getdoc(hash_seeds).splitlines()
    start, stop = lines.index("    function hashSeeds(seed, d, B) {"), lines.index("    }")
    function = textwrap.dedent("\n".join(lines[start : stop + 1]))
    for spec in (*PRESETS.values(), HashSpec(seed=2**64 - 1, bucket_size=512)):
        call = f"console.log(hashSeeds({spec.seed}n, 128n, {spec.bucket_size}n).join(' '))"
        run = subprocess.run(
            ["node", "-e", function + "\n" + call], capture_output=True, text=True, check=True
        )
        assert run.stdout.split() == [str(seed) for seed in hash_seeds(spec, 128)]


@pytest.mark.parametrize(("d", "widths"), [(128, (21, 43, 64)), (256, (43, 85, 128)), (768, (128, 256, 384))])
def test_published_split(d, widths):
    assert HashSpec().widths(d) == widths


@given(max_gram=st.integers(1, 8), extra=st.integers(0, 900), whole=st.integers(0, 9))
def test_split_adds_up_and_grows_with_the_gram(max_gram, extra, whole):
    spec = HashSpec(max_gram=max_gram, whole_token_width=whole)
    d = max_gram * (max_gram + 1) // 2 + whole + extra
    widths = spec.widths(d)
    assert len(widths) == spec.num_parts
    assert sum(widths) == d
    grams = widths[:max_gram]
    assert list(grams) == sorted(grams)
    assert grams[0] >= 1
    assert all(
        abs(width - (d - whole) * 2 * (i + 1) / (max_gram * (max_gram + 1))) < 1
        for i, width in enumerate(grams)
    )


def test_an_explicit_split():
    spec = HashSpec(split=(0, 4, 12), whole_token_width=4)
    assert spec.widths(20) == (0, 4, 12, 4)
    words = ["running", "a"]
    np.testing.assert_array_equal(
        bits(hashing.embed_strings(*code_points(words), spec, 20)), bits(hash_table(spec, words, 20))
    )


OTHER_VALUES = {
    "max_gram": 2,
    "base": 256,
    "bucket_size": 2**31,
    "seed": 0,
    "split": (20, 44, 64),
    "continuation": "strip",
    "short_tokens": "zero",
    "scale": 0.5,
    "whole_token_width": 8,
}


def test_the_fingerprint_covers_every_field():
    assert set(OTHER_VALUES) == {field.name for field in dataclasses.fields(HashSpec)}
    specs = [HashSpec(), *(HashSpec(**{name: value}) for name, value in OTHER_VALUES.items())]
    assert len({spec.fingerprint for spec in specs}) == len(specs)


def test_the_fingerprint_names_the_algorithm(monkeypatch):
    before = HashSpec().fingerprint
    monkeypatch.setattr("eelbert_jax.hashing.spec.ALGORITHM", "another")
    assert HashSpec().fingerprint != before


def test_equal_specs_have_equal_fingerprints():
    assert HashSpec(scale=1).fingerprint == HashSpec(scale=1.0).fingerprint
    assert HashSpec().fingerprint == PRESETS["default"].fingerprint


@pytest.mark.parametrize(
    "spec", [*PRESETS.values(), MORE_OPTIONS, HashSpec(**{**OTHER_VALUES, "split": (60, 60)})]
)
def test_a_spec_survives_json(spec):
    assert HashSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_gram": 0}, "max_gram"),
        ({"max_gram": True}, "max_gram"),
        ({"base": 0}, "base"),
        ({"base": 2**32}, "base"),
        ({"bucket_size": 1}, "bucket_size"),
        ({"bucket_size": 2**32 + 1}, "bucket_size"),
        ({"bucket_size": 1e9}, "bucket_size"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"split": "equal"}, "split"),
        ({"split": (64, 64)}, "split"),
        ({"split": (-1, 64, 65)}, "split"),
        ({"continuation": "drop"}, "keep, strip"),
        ({"short_tokens": "pad"}, "whole, zero"),
        ({"scale": 0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": "big"}, "scale"),
        ({"whole_token_width": -1}, "whole_token_width"),
        ({"modulus": 7}, "Unknown hash fields: modulus"),
    ],
)
def test_bad_fields_are_refused(fields, said):
    with pytest.raises(UserError, match=said):
        HashSpec.from_dict(fields)


@pytest.mark.parametrize(
    ("spec", "d"), [(HashSpec(), 5), (HashSpec(whole_token_width=8), 13), (HashSpec(split=(1, 2, 3)), 7)]
)
def test_a_width_that_does_not_fit_is_refused(spec, d):
    with pytest.raises(UserError, match=f"{d}"):
        spec.widths(d)


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


GOLDEN_FINGERPRINTS = {"default": "d64ef3c85766d955", "reference": "d87e94e79809f809"}
GOLDEN_BITS = {
    "default": ["bddf7ff5", "bf1f84ff", "bec82f2c", "3e5dcf52", "3e3279e6", "bdce6dc4"],
    "reference": ["3f3625f0", "be88cb5f", "3edc06b3", "3e463dad", "3e041b22", "be3bf073"],
}


@pytest.mark.parametrize("preset", PRESETS)
def test_golden(preset):
    assert PRESETS[preset].fingerprint == GOLDEN_FINGERPRINTS[preset], REBLESS
    vector = hash_table(PRESETS[preset], ["##ing"], 128)[0]
    assert [f"{bit:08x}" for bit in bits(vector)[[0, 20, 21, 63, 64, 127]]] == GOLDEN_BITS[preset], REBLESS
