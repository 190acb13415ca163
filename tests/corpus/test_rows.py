"""Rows: packing, reading by index, what a damaged folder says, and the order of an endless reading."""

import hashlib
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.corpus import rows as rows_module
from eelbert_jax.corpus.rows import (
    FORMAT_VERSION,
    RowPacker,
    Rows,
    id_dtype,
    row_indices,
    unigram_accuracy,
    unigram_entropy,
)
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary
from eelbert_jax.workdir import MANIFEST_NAME

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "run", "##ning", "a", "table", "."))
CLS, SEP = VOCABULARY.cls_id, VOCABULARY.sep_id


def write_rows(directory: Path, shards: list[np.ndarray], vocabulary: Vocabulary = VOCABULARY) -> None:
    """Write a folder of rows by hand, so that reading is tested apart from preparing."""
    records = []
    for number, rows in enumerate(shards):
        data = rows.astype(id_dtype(vocabulary.size)).tobytes()
        (directory / f"{number}.bin").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        records.append({"file": f"{number}.bin", "num_rows": len(rows), "sha256": digest})
    save_vocabulary(vocabulary, directory / "vocab.txt")
    manifest = {
        "format_version": FORMAT_VERSION,
        "row_length": shards[0].shape[1],
        "dtype": id_dtype(vocabulary.size).str,
        "vocabulary": {"fingerprint": vocabulary.fingerprint},
        "splits": {
            "train": {"num_rows": sum(map(len, shards)), "shards": records},
            "heldout": {"num_rows": 0, "shards": []},
        },
    }
    (directory / MANIFEST_NAME).write_text(json.dumps(manifest))


@pytest.fixture
def shards():
    generator = np.random.default_rng(0)
    return [generator.integers(0, VOCABULARY.size, (n, 6)) for n in (3, 1, 5)]


@pytest.fixture
def folder(tmp_path, shards):
    write_rows(tmp_path, shards)
    return tmp_path


# Reading


def test_global_index_runs_over_all_shards(folder, shards):
    rows = Rows.open(folder, "train")
    everything = np.concatenate(shards)
    assert (len(rows), rows.row_length) == (9, 6)
    for indices in ([0], [8, 0, 3, 3], [2, 3, 4], []):
        found = rows[np.array(indices, np.int64)]
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, everything[indices].reshape(-1, 6))


@pytest.mark.parametrize("index", [-1, 9])
def test_index_outside_is_refused(folder, index):
    with pytest.raises(IndexError, match=r"\[0, 9\)"):
        Rows.open(folder, "train")[np.array([0, index])]


def test_large_vocabulary_takes_32_bits(tmp_path):
    assert id_dtype(1 << 16) == np.uint16
    words = (f"w{number}" for number in range(1 << 16))
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *words))
    write_rows(tmp_path, [np.array([[CLS, 65_540, SEP]])], vocabulary)
    found = Rows.open(tmp_path, "train")[np.array([0])]
    assert found.dtype == np.uint32
    assert found[0, 1] == 65_540


def test_decode_joins_word_pieces(folder):
    ids = [CLS, *(VOCABULARY.id_of(token) for token in ("a", "run", "##ning", "[SEP]", "table", ".")), SEP]
    assert Rows.open(folder, "train").decode(np.array([ids])) == ["a running [SEP] table ."]


def test_verify_passes_and_then_notices_one_flipped_bit(folder):
    Rows.open(folder, "train").verify()
    path = folder / "1.bin"
    data = bytearray(path.read_bytes())
    data[4] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"1\.bin has SHA-256"):
        Rows.open(folder, "train").verify()


def test_id_past_the_vocabulary_names_shard_row_and_byte(folder):
    path = folder / "2.bin"
    rows = np.fromfile(path, np.uint16).reshape(-1, 6)
    rows[4, 3] = VOCABULARY.size
    rows.tofile(path)
    opened = Rows.open(folder, "train")
    opened[np.arange(8)]  # the other rows are good
    with pytest.raises(UserError, match=rf"2\.bin, row 4, byte {(4 * 6 + 3) * 2}: id {VOCABULARY.size}"):
        opened[np.array([8])]


def test_truncated_or_missing_shard_is_refused_at_open(folder):
    path = folder / "0.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"0\.bin has 35 bytes; the manifest says 36"):
        Rows.open(folder, "train")
    path.unlink()
    with pytest.raises(UserError, match=r"0\.bin is missing"):
        Rows.open(folder, "train")


def test_another_vocabulary_is_refused(folder):
    save_vocabulary(Vocabulary((*VOCABULARY.tokens, "more")), folder / "vocab.txt")
    with pytest.raises(UserError, match="fingerprint"):
        Rows.open(folder, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No prepared rows"),
        ("{", "no valid JSON"),
        ("[]", "format version None, this program reads 1"),
        ('{"format_version": 99}', "format version 99, this program reads 1"),
    ],
)
def test_bad_manifest_is_refused(folder, text, message):
    path = folder / MANIFEST_NAME
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=message):
        Rows.open(folder, "train")


def test_unknown_or_empty_split_is_refused(folder):
    with pytest.raises(UserError, match="no split 'test'; it has train, heldout"):
        Rows.open(folder, "test")
    with pytest.raises(UserError, match=r"'heldout'.* has no row"):
        Rows.open(folder, "heldout")


# Packing


@given(
    documents=st.lists(st.lists(st.integers(5, 9), max_size=12), max_size=8),
    row_length=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_are_the_stream_of_documents(documents, row_length, seed):
    """However the documents arrive, the bodies of the rows are the documents with one [SEP] between them."""
    packer, cuts = RowPacker(row_length, VOCABULARY), random.Random(seed)
    taken = []
    for document in documents:
        packer.start_document()
        while document:
            length = cuts.randint(0, len(document))
            packer.add(np.array(document[:length], np.int64))
            document = document[length:]
            if cuts.random() < 0.3:
                taken.append(packer.take_rows())
    taken.append(packer.take_rows())
    rows = np.concatenate(taken)
    kept = [document for document in documents if document]
    stream = [token for document in kept for token in [SEP, *document]][1:]
    body = rows[:, 1:-1].ravel().tolist()
    assert (rows[:, 0] == CLS).all()
    assert (rows[:, -1] == SEP).all()
    assert body == stream[: len(body)]
    assert packer.num_pending == len(stream) - len(body) < row_length - 2
    assert packer.num_documents == len(kept)
    assert packer.num_tokens == sum(map(len, kept))


# Order


def epochs(seed: int, batch_size: int, num_rows: int, count: int) -> np.ndarray:
    """Return the first epochs [count, num_rows] of a reading in batches."""
    num_batches = -(-num_rows * count // batch_size)
    batches = [row_indices(seed, step, batch_size, num_rows) for step in range(num_batches)]
    return np.concatenate(batches)[: num_rows * count].reshape(count, num_rows)


def is_every_row_once(order: np.ndarray, num_rows: int) -> bool:
    return np.array_equal(np.sort(order), np.arange(num_rows))


@given(seed=st.integers(-(2**63), 2**64), batch_size=st.integers(1, 300), num_rows=st.integers(1, 3000))
@settings(max_examples=60)
def test_every_row_comes_once_an_epoch(seed, batch_size, num_rows):
    batch_size = max(batch_size, num_rows // 50)
    for order in epochs(seed, batch_size, num_rows, count=3):
        assert is_every_row_once(order, num_rows)


def test_every_row_once_is_a_check_that_can_fail():
    """Negative control: reducing a larger order to the range by a remainder repeats rows."""
    larger = row_indices(0, 0, 128, 128)
    assert is_every_row_once(larger, 128)
    assert not is_every_row_once(larger[:100] % 100, 100)


def test_batches_cut_one_endless_order():
    whole = row_indices(seed=3, step=0, batch_size=700, num_rows=90)
    parts = [row_indices(seed=3, step=step, batch_size=7, num_rows=90) for step in range(100)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(row_indices(3, 40, 7, 90, num_steps=10), np.concatenate(parts[40:50]))


def test_epochs_and_seeds_have_their_own_order():
    orders = [order.tolist() for seed in (0, 1, 2**40) for order in epochs(seed, 50, 500, count=3)]
    assert len({tuple(order) for order in orders}) == len(orders)
    for a in range(len(orders)):
        for b in range(a):
            same = np.mean(np.array(orders[a]) == orders[b])
            assert same < 0.02, "two orders agree in more places than chance (1 in 500) explains"


def unevenness(num_rows: int, draws: int = 12_000) -> float:
    """Return the chi-square of the orders of a few rows over its mean for equally likely ones, about 1."""
    orders = row_indices(0, 0, num_rows * draws, num_rows).reshape(draws, num_rows)
    kinds = math.factorial(num_rows)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    expected = draws / kinds
    absent = (kinds - len(counts)) * expected
    return float((((counts - expected) ** 2 / expected).sum() + absent) / (kinds - 1))


@pytest.mark.parametrize("num_rows", [3, 4, 5])
def test_all_orders_of_a_few_rows_are_about_equally_likely(num_rows, monkeypatch):
    assert unevenness(num_rows) < 3
    monkeypatch.setattr(rows_module, "FEISTEL_ROUNDS", 3)  # negative control
    assert unevenness(num_rows) > 10


def test_neighbours_are_spread_evenly():
    """The distance of neighbours in the order is that of random rows: a third of the range on average."""
    order = row_indices(1, 0, 20_000, 20_000)
    assert abs(np.abs(np.diff(order)).mean() / 20_000 - 1 / 3) < 0.01
    assert abs(np.corrcoef(np.arange(20_000), order)[0, 1]) < 0.03


def test_memory_is_that_of_the_batch():
    indices = row_indices(seed=0, step=10**9, batch_size=256, num_rows=10**12)
    assert indices.dtype == np.int64
    assert len(set(indices.tolist())) == 256
    assert 0 <= indices.min() < 10**11
    assert 9 * 10**11 < indices.max() < 10**12


def test_order_is_golden():
    """A change here changes every resumed training; re-bless only with a new format of the manifest."""
    assert row_indices(0, 0, 8, 1000).tolist() == [730, 930, 336, 842, 236, 394, 732, 958]
    assert row_indices(1, 124, 8, 999).tolist() == [726, 310, 776, 418, 931, 170, 407, 160]


@pytest.mark.parametrize(("step", "batch_size", "num_rows"), [(-1, 8, 10), (0, 0, 10), (0, 8, 0)])
def test_impossible_reading_is_refused(step, batch_size, num_rows):
    with pytest.raises(UserError, match="row_indices needs"):
        row_indices(0, step, batch_size, num_rows)


# The baselines of token frequencies, against figures worked out by hand


def test_unigram_entropy_of_even_tokens_is_the_logarithm_of_their_number():
    rows = np.array([[2, 5, 6, 7, 8, 3]] * 3, np.uint16)
    assert unigram_entropy(rows, VOCABULARY.special_ids) == pytest.approx(math.log(4), rel=1e-12)


def test_unigram_entropy_leaves_special_tokens_out_and_counts_the_rest():
    rows = np.array([[2, 5, 5, 5, 9, 3, 0, 0]])
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert unigram_entropy(rows, VOCABULARY.special_ids) == pytest.approx(expected, rel=1e-12)
    assert unigram_entropy(rows, ()) > expected


def test_unigram_accuracy_is_the_share_of_the_most_frequent_token():
    rows = np.array([[2, 5, 5, 5, 9, 3, 0, 0]])
    assert unigram_accuracy(rows, VOCABULARY.special_ids) == 0.75
    assert unigram_accuracy(np.array([[2, 2, 2, 5, 6, 3]]), VOCABULARY.special_ids) == 0.5
