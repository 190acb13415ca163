"""Cached vectors of a teacher: whole, resumed, and refused where they are of something else."""

import json
import string

import numpy as np
import pytest

from eelbert_jax.datasets import vectors
from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.datasets.typos import noised
from eelbert_jax.datasets.vectors import Vectors, text_fingerprint, write_vectors
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"abcdefgh"))
IDS = [np.array([2, *range(5, 5 + length), 3], np.uint16) for length in (1, 1, 2, 3, 3, 4, 5)]
IDENTITY = {
    "teacher": {"name": "teacher", "pooling": None},
    "text": text_fingerprint(IDS),
    "vocabulary": VOCABULARY.fingerprint,
    "max_length": 8,
}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(vectors, "SHARD_SENTENCES", 2)


def teacher(encoded):
    """Say of a row its sum and its length."""
    return np.array([[row.sum(), len(row)] for row in encoded.ids], np.float32)


def write(folder, ids=IDS, vectors_of=teacher, **changes):
    folder.mkdir(exist_ok=True)
    return write_vectors(folder, ids, vectors_of, VOCABULARY, {**IDENTITY, **changes})


def test_what_was_written_is_read(tmp_path):
    write(tmp_path)
    found = Vectors.open(tmp_path)
    assert [row.tolist() for row in found.ids] == [row.tolist() for row in IDS]
    assert found.values.dtype == np.float16
    np.testing.assert_array_equal(found.values, [[row.sum(), len(row)] for row in IDS])


def test_a_killed_run_goes_on_where_it_was_and_ends_in_the_same_bytes(tmp_path):
    asked = []

    def killed_at_the_third(encoded):
        asked.append(len(encoded))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return teacher(encoded)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "killed", vectors_of=killed_at_the_third)
    with pytest.raises(UserError, match="not finished"):
        Vectors.open(tmp_path / "killed")
    write(tmp_path / "killed", vectors_of=lambda encoded: (asked.append(len(encoded)), teacher(encoded))[1])
    assert asked == [2, 2, 2, 2, 1]
    assert write(tmp_path / "killed") == write(tmp_path / "whole")


@pytest.mark.parametrize(
    "changes", [{"text": "another"}, {"teacher": {"name": "teacher", "pooling": "cls"}}, {"ids": IDS[1:]}]
)
def test_vectors_of_another_teacher_or_text_are_refused(tmp_path, changes):
    before = write(tmp_path)
    with pytest.raises(UserError, match="vectors of another teacher or text"):
        write(tmp_path, **changes)
    assert json.loads((tmp_path / "manifest.json").read_text()) == before


def test_a_changed_byte_and_a_lost_file_are_refused(tmp_path):
    write(tmp_path)
    shard = tmp_path / "vectors" / "000001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"000001\.safetensors was changed"):
        Vectors.open(tmp_path)
    shard.unlink()
    with pytest.raises(UserError, match=r"Cannot read .*000001\.safetensors"):
        Vectors.open(tmp_path)


def test_a_folder_without_vectors_and_rows_of_a_corpus_are_refused(tmp_path):
    with pytest.raises(UserError, match="holds no vectors"):
        Vectors.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"rows": 3}')
    with pytest.raises(UserError, match="no manifest of vectors"):
        Vectors.open(tmp_path)


def test_a_teacher_that_says_nan_is_refused(tmp_path):
    with pytest.raises(UserError, match="not finite"):
        write(tmp_path, vectors_of=lambda encoded: teacher(encoded) * np.nan)


def test_short_sentences_are_split_and_keep_their_vectors(tmp_path):
    write(tmp_path)
    train, heldout = Vectors.open(tmp_path).splits(max_length=5, heldout_every=3)
    assert (len(train.encoded), len(heldout.encoded)) == (3, 2)
    for split in (train, heldout):
        np.testing.assert_array_equal(split.labels, teacher(split.encoded))
        assert split.encoded.lengths.max() <= 5
    with pytest.raises(UserError, match="0 sentences have at most 2 tokens"):
        Vectors.open(tmp_path).splits(max_length=2, heldout_every=3)


def test_sentences_are_told_in_a_students_own_vocabulary():
    texts = ["a cab!", "add [x]", "cabs", "zz a", "a-b 'c"]
    pieces = Vocabulary((*SPECIAL_TOKENS, *"abcd", *(f"##{letter}" for letter in "abcdsx"), *"x!-[]'"))
    words = Vocabulary((*SPECIAL_TOKENS, "cab", "add", "cabs", *"abcx!-[]'", "##b"))
    ids = encode_texts(texts, None, pieces, 16).ids
    values = np.arange(5, dtype=np.float16)[:, None]
    kept = [0, 1, 2, 4]  # "zz" is [UNK]
    for vocabulary in (pieces, words):
        found = Vectors({"lowercase": True}, pieces, ids, values).in_vocabulary(vocabulary)
        expected = encode_texts([texts[i] for i in kept], None, vocabulary, 16)
        order = np.argsort(expected.lengths, kind="stable")
        assert [row.tolist() for row in found.ids] == [expected.ids[i].tolist() for i in order]
        assert found.values[:, 0].tolist() == [kept[i] for i in order]
    assert found.lengths.max() < max(map(len, ids))


def test_errors_are_in_the_sentences_to_learn_from_alone_and_their_vectors_stay():
    texts = [f"{first} {second}" for first in ("abba", "dada", "caba") for second in ("cabb", "badd", "daca")]
    vocabulary = Vocabulary(
        (*SPECIAL_TOKENS, *string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase))
    )
    ids = encode_texts(texts, None, vocabulary, 16).ids
    vectors = Vectors({"lowercase": True}, vocabulary, ids, np.arange(9, dtype=np.float16)[:, None])
    clean, noisy = (vectors.splits(16, 3, noise_percent=percent, seed=4) for percent in (0.0, 50.0))

    def texts_by_value(split):
        return {
            int(value[0]): row.tolist() for row, value in zip(split.encoded.ids, split.labels, strict=True)
        }

    assert texts_by_value(noisy[1]) == texts_by_value(clean[1])
    before, after = (texts_by_value(train) for train, _ in (clean, noisy))
    assert before.keys() == after.keys()
    assert before != after
    expected = noised([texts[value] for value in sorted(before)], 50.0, 4)
    of_vocabulary = encode_texts(expected, None, vocabulary, 16).ids
    assert [after[value] for value in sorted(after)] == [row.tolist() for row in of_vocabulary]
    short, _ = vectors.splits(10, 3, noise_percent=50.0, seed=4)
    assert short.encoded.lengths.max() <= 10
