"""What a document is: the same in whatever form it is stored, cut into chunks, held out by its text alone."""

import hashlib
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.corpus.documents import (
    CHUNK_CHARACTERS,
    ReadOptions,
    ReadTally,
    canonical,
    chunk_document,
    is_held_out,
)
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.errors import UserError

LETTERS = st.text("ae\u00e9\u0301\u0323\u1ec7\u1100\u1161\uac00 z", min_size=1, max_size=30)
LINES = st.lists(LETTERS.map(lambda line: f"x{line}y"), min_size=1, max_size=6)
SEEDS = range(8)


def decisions(head: str) -> list[bool]:
    """Return what eight seeds say, of which two different texts share all once in 256."""
    return [is_held_out(head, 0.5, seed) for seed in SEEDS]


def heads_of(path) -> list[str]:
    """Return the first chunks of the documents in a file."""
    (unit,) = find_units(str(path), SourceOptions(), ReadOptions())
    return [chunk.text for chunk in unit.read(ReadOptions(), ReadTally()) if chunk.starts_document]


@given(
    documents=st.lists(LINES, min_size=1, max_size=3),
    repeated=st.sampled_from([1, 1, 100, 1000]),
    form=st.sampled_from(["NFC", "NFD"]),
    line_end=st.sampled_from(["\n", "\r\n", "\r", "\r\r\n"]),
    padding=st.sampled_from(["", "  ", "\t", "\u3000"]),
    final=st.booleans(),
)
@settings(max_examples=150)
def test_equal_documents_are_on_one_side_in_whatever_form_they_are_stored(
    tmp_path_factory, documents, repeated, form, line_end, padding, final
):
    folder = tmp_path_factory.getbasetemp()
    plain, stored = folder / "plain.txt", folder / "stored.txt"
    texts = ["\n".join(lines * repeated) for lines in documents]
    plain.write_text(unicodedata.normalize("NFC", "\n\n".join(texts)), "utf-8", newline="")
    other = unicodedata.normalize(form, "\n\n".join(texts) + "\n" * final).replace("\n", padding + line_end)
    stored.write_text(other, "utf-8", newline="")
    expected = [decisions(head) for head in heads_of(plain)]
    assert len(expected) == len(documents)
    assert [decisions(head) for head in heads_of(stored)] == expected
    records = (next(chunk_document(text)) for text in texts)
    assert [decisions(chunk.text) for chunk in records] == expected


@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1), seed=st.integers(0, 99)
)
def test_text_that_is_canonical_is_held_out_as_it_always_was(text, seed):
    text = canonical(text)
    line_ended = text if text.endswith("\n") else text + "\n"
    data = line_ended[:CHUNK_CHARACTERS].encode()
    digest = hashlib.blake2b(data, digest_size=8, key=seed.to_bytes(8, "little")).digest()
    assert is_held_out(text, 0.5, seed) == (digest[7] < 128)


def test_what_differs_in_a_word_may_be_on_both_sides():
    assert decisions("one word\n") != decisions("two words\n")
    assert decisions("a b\n") != decisions("a  b\n"), "blanks inside a line are text"


@given(text=st.text())
def test_the_canonical_form_is_one(text):
    assert canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize("name", ["on_invalid_utf8", "on_bad_record"])
def test_unknown_policies_are_refused(name):
    with pytest.raises(UserError, match=rf"{name}='ignore' is not one of \w+, \w+\."):
        ReadOptions(**{name: "ignore"})
