"""Object stores that stand in for real ones, some of them failing, and small preparations in them."""

import numpy as np
from fsspec.implementations.memory import MemoryFileSystem

from eelbert_jax.corpus.documents import ReadOptions, ReadTally
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

WORDS = tuple(f"word{number}" for number in range(50))
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
PRODUCTS = ("manifest.json", "vocab.txt", "train", "heldout")


def documents(seed: int, count: int = 30) -> list[str]:
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(5, 60))) for _ in range(count)]


def write_corpus(folder):
    """Write three files of documents and a vocabulary, and return the folder."""
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text("\n\n".join(documents(number)))
    save_vocabulary(VOCABULARY, folder / "vocab")
    return folder


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
