"""The encoder gives what the tokenizer it asks gives, for every text."""

import lzma
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.corpus import word_encoder
from eelbert_jax.corpus.documents import chunk_documents
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary, make_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzABCÉé0123456789東京ΣσİḀ한"
VOCABULARY = Vocabulary(
    (
        *SPECIAL_TOKENS,
        *dict.fromkeys(LETTERS + ".,-–“”'[]$ᄒ"),
        *(f"##{letter}" for letter in dict.fromkeys(LETTERS)),
        "the",
        "##ing",
    )
)
CASES = pytest.mark.parametrize("lowercase", [True, False])


@pytest.fixture(scope="module")
def encoders():
    """Return (ours, the tokenizer) for both cases; kept, so that ours meets texts with its memory filled."""
    return {
        lowercase: (WordEncoder(VOCABULARY, lowercase), make_tokenizer(VOCABULARY, lowercase=lowercase))
        for lowercase in (True, False)
    }


def reference(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


TEXTS = st.text(
    st.one_of(st.sampled_from(LETTERS + " .,-–“”'[]$\n\t"), st.characters(exclude_categories=["Cs"]))
)


@CASES
@given(text=TEXTS)
@settings(max_examples=300)
def test_ids_are_the_tokenizers(encoders, lowercase, text):
    ours, tokenizer = encoders[lowercase]
    ids = ours.encode(text)
    assert ids.dtype == np.uint16
    assert ids.tolist() == reference(tokenizer, text)


@CASES
@pytest.mark.parametrize(
    "points",
    [
        pytest.param([*range(0x3000), *range(0x3000, 0x30000, 101)], id="most used"),
        pytest.param(range(sys.maxunicode + 1), id="all", marks=pytest.mark.slow),
    ],
)
def test_characters_alone_and_inside_a_word(encoders, lowercase, points):
    ours, tokenizer = encoders[lowercase]
    points = [point for point in points if not 0xD800 <= point < 0xE000]
    for start in range(0, len(points), 1 << 16):
        block = "".join(f"{chr(point)} a{chr(point)}a " for point in points[start : start + (1 << 16)])
        assert ours.encode(block).tolist() == reference(tokenizer, block)


@CASES
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[SEP] [CLS][MASK]",
        "ΟΔΟΣ İstanbul e\u0301 E\u0301\u0323 \u1e69",
        "a" * 100 + " " + "a" * 101,
        "a\u0344\u08d4\u1b44\u0302",
        "x\u200dy\u00adz\ufffd\x00w\x85v\u2028u",
    ],
)
def test_texts_that_a_shortcut_would_miss(encoders, lowercase, text):
    ours, tokenizer = encoders[lowercase]
    assert ours.encode(text).tolist() == reference(tokenizer, text)


def test_marks_that_change_places_are_left_to_the_tokenizer():
    """Negative control: without that, two marks in an order that decomposition changes come out wrong."""
    vocabulary = Vocabulary((*VOCABULARY.tokens, "##\u08d4", "##\u1b44"))
    text = "a\u08d4\u1b44"
    ours = WordEncoder(vocabulary, True)
    expected = reference(make_tokenizer(vocabulary), text)
    assert ours.encode(text).tolist() == expected
    ours._marks = ""
    assert ours.encode(text).tolist() != expected


def test_memory_is_bounded_and_forgetting_changes_nothing(monkeypatch):
    monkeypatch.setattr(word_encoder, "MAX_WORDS", 10)
    ours = WordEncoder(VOCABULARY, True)
    text = " ".join(f"the{number}" for number in [*range(100), *range(100)])
    assert ours.encode(text).tolist() == reference(make_tokenizer(VOCABULARY), text)
    assert len(ours._words) <= 10


def test_large_vocabularies_take_32_bits():
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *(f"w{number}" for number in range(1 << 16))))
    ids = WordEncoder(vocabulary, True).encode("w65535 w0")
    assert ids.dtype == np.uint32
    assert ids.tolist() == [65540, 5]


@pytest.mark.slow
@CASES
def test_real_text_of_each_kind(data_dir, vocabulary_file, lowercase):
    vocabulary = load_vocabulary(vocabulary_file)
    ours, tokenizer = WordEncoder(vocabulary, lowercase), make_tokenizer(vocabulary, lowercase=lowercase)
    for name in ("enwiki-07", "gutenberg-03"):
        with lzma.open(data_dir / "corpus" / f"{name}.txt.xz", "rt", encoding="utf-8") as lines:
            texts = [chunk.text for chunk in chunk_documents(lines)]
        references = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        for text, expected in zip(texts, references, strict=True):
            assert ours.encode(text).tolist() == expected.ids
