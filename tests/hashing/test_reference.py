"""Strings as code points, the layout that the hash takes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eelbert_jax.hashing.reference import code_points


def test_code_points_are_padded_on_the_right():
    characters, lengths = code_points(["ab", "", "\U0001f600é", "\ud800"])
    assert characters.dtype == np.uint32
    assert lengths.dtype == np.int32
    assert characters.tolist() == [[97, 98], [0, 0], [0x1F600, 0xE9], [0xD800, 0]]
    assert lengths.tolist() == [2, 0, 2, 1]


@given(st.lists(st.text()))
def test_code_points_spell_the_strings(strings):
    characters, lengths = code_points(strings)
    assert characters.shape == (len(strings), max([1, *map(len, strings)]))
    spelled = ["".join(map(chr, row[:length])) for row, length in zip(characters, lengths, strict=True)]
    assert spelled == strings
    assert all(not row[length:].any() for row, length in zip(characters, lengths, strict=True))
