"""Text and rows in an object store: the same bytes as from files here, and failures that say what to do.

fsspec's memory:// stands in for a store: it has objects and prefixes, no folders to lock, and no network.
"""

import gzip
import json
import lzma
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import Chunk, ReadOptions
from eelbert_jax.corpus.sources import SourceOptions
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from support.stores import (
    DeniedFileSystem,
    documents,
    files_here,
    files_there,
    flags,
    texts_of,
    upload,
    write_corpus,
)


@pytest.fixture
def corpus(tmp_path):
    """Write three files of documents and a vocabulary, and return the folder."""
    return write_corpus(tmp_path / "corpus")


# Sources


@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "txt.xz", "jsonl", "parquet"])
def test_text_from_a_store_is_the_text_of_the_file(tmp_path, store, suffix):
    texts = documents(0)
    plain = "\n\n".join(texts).encode()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), table)
    contents = {
        "txt": plain,
        "txt.gz": gzip.compress(plain),
        "txt.xz": lzma.compress(plain),
        "jsonl": lines,
        "parquet": table.getvalue().to_pybytes(),
    }
    (tmp_path / f"a.{suffix}").write_bytes(contents[suffix])
    store.pipe_file(f"/bucket/deep/a.{suffix}", contents[suffix])
    here = texts_of(f"{tmp_path}/*.{suffix}")
    assert [chunk.text.strip() for chunk in here[0]] == texts
    assert texts_of(f"memory://bucket/**/*.{suffix}") == here
    assert texts_of(f"file://{tmp_path}/*.{suffix}") == here


def test_a_large_object_is_read_in_the_ranges_of_the_file(corpus, store):
    upload(corpus, store, "/bucket")
    options = SourceOptions(min_unit_bytes=500, max_unit_bytes=1000)
    here = texts_of(f"{corpus}/*.txt", options)
    assert len(here) > 9
    assert texts_of("memory://bucket/*.txt", options) == here


def test_a_bad_line_in_a_store_is_named(store):
    store.pipe_file("/bucket/a.txt", b"one\ntwo \xff\n")
    with pytest.raises(
        UserError, match=r"memory:///?bucket/a\.txt, line 2, byte 5 of the line: invalid UTF-8"
    ):
        texts_of("memory://bucket/a.txt", read=ReadOptions(on_bad_record="refuse"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://bucket/none/*.txt", r"No object matches 'memory://bucket/none/.*Check the bucket"),
        ("memory://bucket/folder", r"is a folder.*memory://bucket/folder/\*\.txt"),
        ("nosuch://bucket/*.txt", r"Cannot read nosuch://bucket.*Protocol not known"),
        ("notinstalled://bucket/*.txt", r"is not installed \(pip install the_library\)"),
        ("denied://bucket/*.txt", r"Cannot read denied://bucket/.*LoginError: no token; check .*credentials"),
    ],
)
def test_a_source_that_cannot_be_had_says_what_to_do(store, failing_stores, source, message):
    store.pipe_file("/bucket/folder/a.txt", b"text")
    with pytest.raises(UserError, match=message):
        texts_of(source)


def test_a_broken_connection_leaves_no_shard(corpus, tmp_path, failing_stores):
    with pytest.raises(UserError, match=r"Cannot read flaky:///?bucket/a\.txt: LoginError: connection lost"):
        prepare.main(flags(corpus, "flaky://bucket/a.txt", tmp_path / "rows"))
    assert not files_here(tmp_path / "rows").keys() - {"vocab.txt"}
    assert not list((tmp_path / "rows").rglob("*.tmp"))


# Preparing into a store


def test_rows_in_a_store_are_the_rows_of_a_folder(corpus, tmp_path, store, cache, capsys):
    upload(corpus, store, "/bucket/corpus")
    source = "memory://bucket/corpus/*.txt"
    prepare.main(flags(corpus, source, tmp_path / "rows"))
    words = flags(corpus, source, "memory://bucket/rows", "--config.vocabulary=memory://bucket/corpus/vocab")
    prepare.main([*words, "--config.show_rows=1"])
    assert files_there(store, "memory://bucket/rows") == files_here(tmp_path / "rows")
    assert store.exists("/bucket/rows/config.json")
    assert "train 0: word" in capsys.readouterr().out
    prepare.main(flags(corpus, f"{corpus}/*.txt", tmp_path / "from files"))
    here, there = files_here(tmp_path / "from files"), files_here(tmp_path / "rows")
    assert {name for name in here if here[name] != there[name]} == {"manifest.json"}, (
        "only the source differs"
    )


def test_preparation_in_a_store_goes_on_where_it_was(corpus, store, monkeypatch):
    words = flags(corpus, f"{corpus}/*.txt", "memory://bucket/rows")
    prepare.main(words)
    before = files_there(store, "memory://bucket/rows")
    store.rm_file("/bucket/rows/units/000001.json")
    put = []
    for name, place in {"put": 1, "write_bytes": 0}.items():
        real = getattr(storage, name)
        monkeypatch.setattr(
            storage, name, lambda *args, real=real, place=place: put.append(args[place]) or real(*args)
        )
    prepare.main(words)
    assert files_there(store, "memory://bucket/rows") == before
    assert [path.removeprefix("memory://bucket/rows/") for path in put][:3] == [
        "train/000001.bin",
        "heldout/000001.bin",
        "units/000001.json",
    ]
    with pytest.raises(UserError, match=r"rows of another preparation .*row_length: 16 there, 8 now"):
        prepare.main([*words, "--config.row_length=8"])


def test_an_object_replaced_at_the_same_size_is_prepared_again(corpus, store, capsys):
    upload(corpus, store, "/bucket/corpus")
    words = flags(corpus, "memory://bucket/corpus/*.txt", "memory://bucket/rows")
    prepare.main(words)
    before = files_there(store, "memory://bucket/rows")
    upload(corpus, store, "/bucket/corpus")  # the same text at another time
    prepare.main(words)
    assert files_there(store, "memory://bucket/rows") == before
    assert "changed" not in capsys.readouterr().err
    text = store.cat_file("/bucket/corpus/1.txt")
    store.pipe_file("/bucket/corpus/1.txt", text.replace(b"word1 ", b"word2 "))
    prepare.main(words)
    assert re.search(r"1 of 3 units has changed; .*memory://?/bucket/corpus/1\.txt", capsys.readouterr().err)
    assert files_there(store, "memory://bucket/rows") != before


def test_brackets_in_the_name_of_an_object_are_understood(store):
    store.pipe_file("/bucket/dump [en]/a [1].txt", b"text")
    for source in ("memory://bucket/dump [en]/a [1].txt", "memory://bucket/dump [en]/*.txt"):
        assert texts_of(source) == [[Chunk("text", True)]]


def test_a_vocabulary_trained_for_a_store_is_kept_there(corpus, store):
    words = flags(corpus, f"{corpus}/*.txt", "memory://bucket/rows", "--config.vocabulary=")
    prepare.main([*words, "--config.train_vocabulary.size=300"])
    before = files_there(store, "memory://bucket/rows")
    store.rm_file("/bucket/rows/units/000001.json")
    prepare.main([*words, "--config.train_vocabulary.size=300"])
    assert files_there(store, "memory://bucket/rows") == before


def test_a_store_that_refuses_is_one_clear_error(corpus, failing_stores):
    with pytest.raises(
        UserError, match=r"Cannot read the workdir denied://bucket/rows: LoginError: no token;"
    ):
        prepare.main(flags(corpus, f"{corpus}/*.txt", "denied://bucket/rows"))


def test_temporary_files_go_when_the_store_refuses(corpus, tmp_path, store, monkeypatch):
    monkeypatch.setattr(storage.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(MemoryFileSystem, "put_file", DeniedFileSystem._refuse)
    with pytest.raises(UserError, match=r"Cannot write to memory://bucket/rows: LoginError"):
        prepare.main(flags(corpus, f"{corpus}/*.txt", "memory://bucket/rows"))
    assert not list(tmp_path.glob("*.tmp"))
