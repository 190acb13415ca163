"""The documentation installed on this machine, a corpus without a download; modules are parsed, not run."""

import ast
import dataclasses
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eelbert_jax.corpus.documents import Chunk, ReadOptions, ReadTally, chunk_document
from eelbert_jax.errors import UserError

MIN_CHARACTERS = 200
"""A module with less documentation is left out: it has no running text."""
MODULE_BYTES = 1 << 22
"""A larger module is left out: it is generated, and parsing it would take a gigabyte."""
SKIPPED_FOLDERS = ("test", "tests", "testing", "idlelib", "__pycache__", "site-packages", "dist-packages")
"""Below a root: code that tests, code in other roots."""


@dataclasses.dataclass(frozen=True)
class DocumentationUnit:
    """Read the documentation of some modules and packages; each file is a document."""

    files: tuple[tuple[str, str, int], ...]
    """(root folder, path below it, size in bytes) of each."""

    @property
    def num_bytes(self) -> int:
        """Sum of the sizes of the files."""
        return sum(size for *_, size in self.files)

    @property
    def versions(self) -> dict[str, str]:
        """None: what is installed is not edited."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Return paths below their roots, and sizes; where the roots are does not matter."""
        return {"files": [[path, size] for _, path, size in self.files]}

    def read(self, options: ReadOptions, tally: ReadTally) -> Iterator[Chunk]:
        """Yield the documents of the files in order; a file that cannot be parsed has none."""
        for root, path, size in self.files:
            tally.num_records += 1
            yield from chunk_document(documentation(Path(root, path)))
            tally.num_bytes += size


def documentation(path: Path) -> str:
    """Return the documentation in a Python module or a package's METADATA, "" where there is little."""
    data = path.read_bytes()
    if path.suffix != ".py":
        _, _, description = data.replace(b"\r\n", b"\n").partition(b"\n\n")  # a mail's header and body
        text = description.decode("utf-8", errors="replace")
        return text if len(text) >= MIN_CHARACTERS else ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError):
        return ""  # a template or code for another version of Python
    text = "\n".join(_docstrings(tree))
    return text if len(text) >= MIN_CHARACTERS else ""


def _docstrings(tree: ast.Module) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, documented)]
    for node in sorted(found, key=lambda node: getattr(node, "lineno", 0)):
        if text := ast.get_docstring(node):
            # Half of a surrogate pair can be written in a Python string, and is no text.
            yield text.encode("utf-8", errors="replace").decode("utf-8")


def find_documentation(max_bytes: int, unit_bytes: int) -> Iterator[DocumentationUnit]:
    """Yield units of at least `unit_bytes`, but the last: standard library, then packages by name."""
    group: list[tuple[str, str, int]] = []
    total = grouped = 0
    for root, path, size in _installed_files():
        if total + size > max_bytes:
            break
        group.append((root, path, size))
        total, grouped = total + size, grouped + size
        if grouped >= unit_bytes:
            yield DocumentationUnit(tuple(group))
            group, grouped = [], 0
    if group:
        yield DocumentationUnit(tuple(group))
    if not total:
        raise UserError(f"No documentation of at most {max_bytes} bytes found; raise --config.docs.max_mib.")


def _installed_files() -> Iterator[tuple[str, str, int]]:
    paths = sysconfig.get_paths()
    for root in dict.fromkeys([paths["stdlib"], paths["purelib"], paths["platlib"]]):
        for path in sorted(_documented_files(Path(root))):
            file = Path(root, path)
            size = file.stat().st_size if file.is_file() else 0  # a broken link is no file
            if 0 < size <= MODULE_BYTES:
                yield root, path, size


def _documented_files(root: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS]
        below = Path(folder).relative_to(root)
        for name in files:
            if name.endswith(".py") or (name == "METADATA" and below.suffix == ".dist-info"):
                yield (below / name).as_posix()
