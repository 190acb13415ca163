"""Text and rows in an object store: the same bytes as from files here, and failures that say what to do.

fsspec's memory:// stands in for a store: it has objects and prefixes, no folders to lock, and no network.
"""

import gzip
import json
import lzma
import os
import re

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from eelbert_jax.corpus import cache as row_cache
from eelbert_jax.corpus import storage
from eelbert_jax.corpus.documents import Chunk, ReadOptions, ReadTally
from eelbert_jax.corpus.rows import Rows, read_manifest
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

WORDS = tuple(f"word{number}" for number in range(50))
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
PRODUCTS = ("manifest.json", "vocab.txt", "train", "heldout")


def documents(seed: int, count: int = 30) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(5, 60))) for _ in range(count)]


@pytest.fixture
def corpus(tmp_path):
    """Write three files of documents and a vocabulary, and return the folder."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text("\n\n".join(documents(number)))
    save_vocabulary(VOCABULARY, folder / "vocab")
    return folder


@pytest.fixture
def store():
    """Return the file system behind memory://, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Let copies of rows go to a folder of the test, and return it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def upload(folder, system, url: str) -> None:
    for path in folder.iterdir():
        system.pipe_file(f"{url}/{path.name}", path.read_bytes())


def flags(corpus, source, workdir, *more: str) -> list[str]:
    return [
        f"--config.source={source}",
        f"--config.vocabulary={corpus}/vocab",
        f"--workdir={workdir}",
        "--config.row_length=16",
        "--config.held_out.fraction=0.2",
        "--config.unit_mib.min=0.001",
        "--config.workers=1",
        *more,
    ]


def files_here(workdir) -> dict[str, bytes]:
    """Return what a preparation made in a folder."""
    files = [path for path in workdir.rglob("*") if path.is_file()]
    named = {path.relative_to(workdir).as_posix(): path.read_bytes() for path in files}
    return {name: data for name, data in named.items() if name.split("/")[0] in PRODUCTS}


def files_there(system, url: str) -> dict[str, bytes]:
    """Return what a preparation made in the store."""
    root = url.removeprefix("memory:/") + "/"
    named = {name.removeprefix(root): system.cat_file(name) for name in system.find(root)}
    return {name: data for name, data in named.items() if name.split("/")[0] in PRODUCTS}


def texts_of(
    source: str, options: SourceOptions | None = None, read: ReadOptions | None = None
) -> list[list]:
    """Return the chunks of each unit of a source."""
    read = read or ReadOptions()
    units = find_units(source, options or SourceOptions(), read)
    return [list(unit.read(read, ReadTally())) for unit in units]


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


class LoginError(Exception):
    """What a library of a store raises: no OSError."""


class DeniedFileSystem(MemoryFileSystem):
    """A store that lets nobody in."""

    protocol = "denied"

    def _refuse(self, *args, **kwargs):
        raise LoginError("no token\nand a long story")

    info = glob = ls = open = put_file = pipe_file = _refuse


class FlakyFileSystem(MemoryFileSystem):
    """A store whose connection breaks in the middle of an object."""

    protocol = "flaky"
    store = {"/bucket/a.txt": None}  # noqa: RUF012, as the class that it extends has it

    def glob(self, path, detail=False, **kwargs):
        return {"/bucket/a.txt": {"name": "/bucket/a.txt", "size": 3 << 20, "type": "file"}}

    def open(self, path, mode="rb", **kwargs):
        return self

    def seek(self, offset, whence=0):
        self.position = offset
        return offset

    def tell(self):
        return self.position

    def read(self, length):
        if self.position >= 1 << 20:
            raise LoginError("connection lost")
        data = (b"word1 word2\n\n" * (length // 13 + 1))[:length]
        self.position += length
        return data

    def close(self):
        pass


@pytest.fixture
def failing_stores():
    fsspec.register_implementation("denied", DeniedFileSystem, clobber=True)
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    fsspec.register_implementation("notinstalled", "no_such_module.X", True, "pip install the_library")


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


# Rows in a store


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
