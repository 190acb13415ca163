"""The files of one's own task, here and in an object store."""

import gzip

import fsspec
import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.splits import file_digests, read_splits
from eelbert_jax.errors import UserError

TABLE = "sentence,label\na fine film,good\na dull film,bad\n"
TAGS = "ada B-PER\nran O\n\nrome B-LOC\n"


@pytest.fixture
def store():
    """Return the file system behind memory://, empty."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def settings(task, **files):
    config = cli.load_config(f"configs/glue.py:micro,task={task}")
    config.update_from_flattened_dict({f"{task}.{split}": path for split, path in files.items()})
    return config.to_dict()


def test_the_files_of_ones_own_task_are_digested_and_glues_are_not(tmp_path):
    (tmp_path / "train.csv").write_text("abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "test.csv").write_text("abc")
    files = {split: str(tmp_path / f"{split}.csv") for split in ("train", "test")}
    own = settings("custom", **files, dev_every=5)
    assert file_digests(own) == dict.fromkeys(files, digest)
    assert file_digests({**own, "task": "rte"}) == {}


def test_tables_in_a_store_are_tables(store, tmp_path):
    here = {split: str(tmp_path / f"{split}.csv.gz") for split in ("train", "dev", "test")}
    there = {split: f"memory://bucket/{split}.csv.gz" for split in here}
    for split, path in here.items():
        (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
        store.put(path, there[split])
    _, expected = read_splits(settings("custom", **here))
    _, found = read_splits(settings("custom", **there))
    assert list(found) == ["train", "dev", "test"]
    for split, examples in found.items():
        assert examples.first == expected[split].first == ("a fine film", "a dull film")
        assert examples.labels.tolist() == [1, 0]
    assert file_digests(settings("custom", **there)) == file_digests(settings("custom", **here))


def test_words_in_a_store_are_words(store):
    store.pipe("/bucket/tags.txt", TAGS.encode())
    task, splits = read_splits(
        settings("tokens", train="memory://bucket/tags.txt", dev="memory://bucket/tags.txt")
    )
    assert splits["dev"].words == (("ada", "ran"), ("rome",))
    assert task.labels == ("O", "B-LOC", "B-PER")


@pytest.mark.parametrize("task", ["custom", "tokens"])
def test_a_file_that_a_store_has_not_is_named(store, task):
    there = dict.fromkeys(("train", "dev"), "memory://bucket/none.csv")
    with pytest.raises(UserError, match=r"Cannot read memory://bucket/none\.csv: no such object"):
        read_splits(settings(task, **there))
    with pytest.raises(UserError, match=r"Cannot read memory://bucket/none\.csv: no such object"):
        file_digests(settings(task, **there))
