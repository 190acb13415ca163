"""A small corpus, and object stores that work or fail."""

import fsspec
import pytest

from eelbert_jax.vocabulary import save_vocabulary
from support.preparations import DOCUMENTS_A_FILE, NUM_FILES, VOCABULARY, document
from support.stores import DeniedFileSystem, FlakyFileSystem


@pytest.fixture
def corpus(tmp_path):
    """Write six files of forty documents and a vocabulary, and return the folder."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(NUM_FILES):
        numbers = range(DOCUMENTS_A_FILE * number, DOCUMENTS_A_FILE * (number + 1))
        (folder / f"{number}.txt").write_text("\n\n".join(map(document, numbers)))
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


@pytest.fixture
def failing_stores():
    fsspec.register_implementation("denied", DeniedFileSystem, clobber=True)
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    fsspec.register_implementation("notinstalled", "no_such_module.X", True, "pip install the_library")
