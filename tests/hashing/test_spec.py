"""What a hash function is: its seeds, its split, its fingerprint, and the values that it refuses."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import PRESETS, HashSpec, hash_seeds, random_signatures
from support.hash_truth import MODULI, MORE_OPTIONS


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


def test_a_random_signature_depends_on_the_id_alone():
    few, many = (random_signatures(HashSpec(), size)[0] for size in (10, 1000))
    np.testing.assert_array_equal(few, many[:10])


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
    ("fields", "message"),
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
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        HashSpec.from_dict(fields)


@pytest.mark.parametrize(
    ("spec", "d"), [(HashSpec(), 5), (HashSpec(whole_token_width=8), 13), (HashSpec(split=(1, 2, 3)), 7)]
)
def test_a_width_that_does_not_fit_is_refused(spec, d):
    with pytest.raises(UserError, match=f"{d}"):
        spec.widths(d)
