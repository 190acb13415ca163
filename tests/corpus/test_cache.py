"""Rows in an object store: read from copies here that are made once, checked and replaced.

fsspec's memory:// stands in for a store: it has objects and prefixes, no folders to lock, and no network.
"""

import os

import numpy as np
import pytest

from eelbert_jax.corpus import cache as row_cache
from eelbert_jax.corpus import storage
from eelbert_jax.corpus.rows import Rows, read_manifest
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from support.stores import flags, write_corpus


@pytest.fixture
def corpus(tmp_path):
    """Write three files of documents and a vocabulary, and return the folder."""
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def stored_rows(corpus, store, cache):
    """Prepare rows in the store and return their URL."""
    prepare.main(flags(corpus, f"{corpus}/*.txt", "memory://bucket/rows"))
    return "memory://bucket/rows"


def test_rows_are_read_from_a_store_and_copied_once(corpus, tmp_path, store, cache, stored_rows, monkeypatch):
    prepare.main(flags(corpus, f"{corpus}/*.txt", tmp_path / "rows"))
    opened = []
    real = storage.open_file
    monkeypatch.setattr(storage, "open_file", lambda path: opened.append(path) or real(path))
    for split in ("train", "heldout"):
        here, there = Rows.open(tmp_path / "rows", split), Rows.open(f"{stored_rows}/", split)
        indices = np.arange(len(here))[::-1]
        np.testing.assert_array_equal(there[indices], here[indices])
        there.verify()
    assert sum(path.endswith(".bin") for path in opened if storage.is_url(path)) == 6
    opened.clear()
    Rows.open(stored_rows, "train")
    assert opened == [f"{stored_rows}/manifest.json", f"{stored_rows}/vocab.txt"]
    assert Rows.open(f"file://{tmp_path}/rows", "train").manifest == read_manifest(tmp_path / "rows")


def test_rows_prepared_anew_are_not_taken_for_the_old_ones(corpus, store, cache, stored_rows):
    old = Rows.open(stored_rows, "train")
    store.rm("/bucket/rows", recursive=True)
    prepare.main(flags(corpus, f"{corpus}/*.txt", stored_rows, "--config.held_out.seed=1"))
    new = Rows.open(stored_rows, "train")
    new.verify()
    old.verify()
    assert len(old) != len(new)


def test_a_damaged_shard_is_refused_and_mended_by_the_next_copy(store, cache, stored_rows):
    good = store.cat_file("/bucket/rows/train/000001.bin")
    store.pipe_file("/bucket/rows/train/000001.bin", good[:-1] + b"\xff")
    with pytest.raises(
        UserError, match=r"memory://bucket/rows/train/000001\.bin has SHA-256 .*copy it again"
    ):
        Rows.open(stored_rows, "train")
    assert not list(cache.rglob("000001.bin"))
    assert not list(cache.rglob("*.tmp"))
    store.pipe_file("/bucket/rows/train/000001.bin", good)
    Rows.open(stored_rows, "train").verify()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"\xff"])
def test_a_copy_that_rots_is_replaced(store, cache, stored_rows, damage):
    before = Rows.open(stored_rows, "train")
    expected = before[np.arange(len(before))]
    [copy] = cache.rglob("train/000001.bin")
    copy.write_bytes(damage(copy.read_bytes()))
    rows = Rows.open(stored_rows, "train")
    rows.verify()
    np.testing.assert_array_equal(rows[np.arange(len(rows))], expected)
    assert copy.read_bytes() == store.cat_file("/bucket/rows/train/000001.bin")


def test_a_copy_that_rots_is_not_used_where_the_store_has_nothing_better(store, cache, stored_rows):
    rows = Rows.open(stored_rows, "train")
    [copy] = cache.rglob("train/000001.bin")
    rotten = copy.read_bytes()[:-1] + b"\xff"
    copy.write_bytes(rotten)
    store.pipe_file("/bucket/rows/train/000001.bin", rotten)
    with pytest.raises(UserError, match=r"memory://bucket/rows/train/000001\.bin has SHA-256"):
        rows.verify()
    assert not copy.exists()


def test_missing_rows_in_a_store_are_said(store, cache, stored_rows, failing_stores):
    store.rm_file("/bucket/rows/train/000002.bin")
    with pytest.raises(UserError, match=r"Cannot copy the rows .*train/000002\.bin no such object or bucket"):
        Rows.open(stored_rows, "train")
    with pytest.raises(
        UserError, match=r"No prepared rows in memory://bucket/none .*no such object or bucket"
    ):
        Rows.open("memory://bucket/none", "train")
    with pytest.raises(UserError, match=r"No prepared rows in denied://bucket/rows .*LoginError: no token"):
        Rows.open("denied://bucket/rows", "train")


def test_no_room_for_copies_is_one_clear_error(store, stored_rows, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Cannot copy the rows .*Not a directory.*XDG_CACHE_HOME"):
        Rows.open(stored_rows, "train")


def test_copies_lie_in_the_cache_of_the_user(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert os.fspath(row_cache.cache_folder()) == "/home/someone/.cache/eelbert_jax/rows"
