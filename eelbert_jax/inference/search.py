"""Search a folder of text by meaning: passages in, their vectors beside them, the nearest of a query out."""

import heapq
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from eelbert_jax.datasets.vectors import unit
from eelbert_jax.errors import UserError, warn_once
from eelbert_jax.inference.predict import Model
from eelbert_jax.workdir import INDEX_NAME, write_whole

SHORT, LONG = 150, 400
"""Bytes of a passage: paragraphs are joined up to SHORT, and cut at the first end of a sentence or line after
it, or at a space before LONG."""
_PARAGRAPH = re.compile(rb"[^\n]*[^\s][^\n]*(?:\n[^\n]*[^\s][^\n]*)*")
_END = re.compile(rb"[.!?][\"')\]]*\s|\n")


class Hit(NamedTuple):
    """Hold a passage: `path` of its file below the folder, its first line from 1, its cosine to the query."""

    score: float
    path: str
    line: int
    text: str


class Index(NamedTuple):
    """Hold the passages of a folder.

    Attributes:
      files: {path below the folder: [bytes, time of change in ns, passages]}, in the order of `spans`.
      spans: first and last byte + 1 of each passage in its file, int64 [n, 2].
      vectors: unit vectors, float16 [n, S].
    """

    files: dict[str, list[int]]
    spans: np.ndarray
    vectors: np.ndarray


def check(folder: str | Path, query: str, top: int) -> None:
    """Refuse what no model could find: no such folder, no query, or nothing to be shown."""
    folder = Path(folder).expanduser()
    if not query.strip():
        raise UserError('There is nothing to search for: eelbert search --in=DIR "some words".')
    if top < 1:
        raise UserError(f"--top={top} shows nothing; take 1 or more.")
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name one with files of text, --in=DIR.")


def search(model: Model, folder: str | Path, query: str, top: int = 5) -> list[Hit]:
    """Return the passages nearest to a query, the nearest first; read what changed since the last search.

    Every file without NUL bytes is text, but for those whose names begin with a dot.

    Raises:
      UserError: there is no text in the folder; else as `check`.
    """
    check(folder, query, top)
    folder = Path(folder).expanduser()
    index = update(model, folder)
    if not len(index.vectors):
        raise UserError(f"There is no text in {folder}: name a folder with files of text, --in=DIR.")
    scores = index.vectors.astype(np.float32) @ unit(model.encode([query]))[0]
    best = heapq.nlargest(top, range(len(scores)), key=scores.__getitem__)
    owners = np.repeat(np.arange(len(index.files)), [count for *_, count in index.files.values()])
    names = list(index.files)
    return [_hit(folder, names[owners[i]], index.spans[i], float(scores[i])) for i in best]


def update(model: Model, folder: Path) -> Index:
    """Return the index of a folder, of which what is new or changed was read now; keep it there if it can be.

    Interrupted, what was read until then is kept.
    """
    before = _read(folder, model)
    ends = np.cumsum([0, *(count for *_, count in before.files.values())])
    parts = {
        name: (before.spans[start:end], before.vectors[start:end])
        for name, start, end in zip(before.files, ends[:-1], ends[1:], strict=True)
    }
    files = dict(before.files)
    try:
        found = dict(_stamps(folder))
        files = {name: known for name, known in files.items() if known[:2] == found.get(name)}
        for name, stamp in found.items():
            if name not in files and (data := _content(folder / name)) is not None:
                parts[name] = _embed(model, data)
                files[name] = [*stamp, len(parts[name][0])]
    finally:
        spans, vectors = zip(*(parts[name] for name in files), strict=True) if files else ((), ())
        index = Index(
            files,
            np.concatenate([before.spans[:0], *spans]),
            np.concatenate([before.vectors[:0], *vectors]),
        )
        if files != before.files:
            _write(folder, model.fingerprint, index)
    return index


def passages(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the first and last byte + 1 of the passages of a text, which cut no character."""
    start = end = 0
    for paragraph in _PARAGRAPH.finditer(data):
        if end - start >= SHORT or paragraph.end() - start > LONG:
            yield from _cut(data, start, end)
            start = paragraph.start()
        start, end = start if end > start else paragraph.start(), paragraph.end()
    yield from _cut(data, start, end)


def _cut(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    while end - start > LONG:
        found = _END.search(data, start + SHORT, start + LONG)
        space = data.rfind(b" ", start + SHORT, start + LONG)
        cut = found.end() if found else space + 1 if space >= 0 else start + LONG
        while cut < end and data[cut] & 0xC0 == 0x80:  # inside a character
            cut += 1
        yield start, cut
        start = cut
    if start < end:
        yield start, end


def _stamps(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield the files of a folder at any depth, in order, with bytes and time of change."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(root, name)
            if path.is_file():
                found = path.stat()
                yield str(path.relative_to(folder)), [found.st_size, found.st_mtime_ns]


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError as error:  # of another user, or gone since
        warn_once(f"{path} is left out: {error.strerror}.")
        return None


def _embed(model: Model, data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return the spans and the vectors of the passages of a file."""
    spans = [] if b"\0" in data else list(passages(data))
    texts = [data[start:end].decode("utf-8", "replace") for start, end in spans]
    return np.array(spans, np.int64).reshape(-1, 2), unit(model.encode(texts)).astype(np.float16)


def _read(folder: Path, model: Model) -> Index:
    """Return the index of an earlier search with the same model; an empty one where there is none."""
    try:
        with safe_open(folder / INDEX_NAME, "numpy") as opened:
            record = json.loads((opened.metadata() or {})["index"])
            if record["model"] == model.fingerprint:
                return Index(record["files"], opened.get_tensor("spans"), opened.get_tensor("vectors"))
    except (OSError, SafetensorError, KeyError, ValueError):
        pass  # none, or a damaged one: it is made again
    return Index({}, np.zeros((0, 2), np.int64), np.zeros((0, model.vector_size), np.float16))


def _write(folder: Path, fingerprint: str, index: Index) -> None:
    record = json.dumps({"model": fingerprint, "files": index.files})
    content = save({"spans": index.spans, "vectors": index.vectors}, {"index": record})
    try:
        write_whole(folder / INDEX_NAME, content)
    except UserError as error:
        print(f"The index is not kept: {error}")


def _hit(folder: Path, name: str, span: np.ndarray, score: float) -> Hit:
    data = _content(folder / name) or b""
    text = data[span[0] : span[1]].decode("utf-8", "replace")
    return Hit(score, name, data.count(b"\n", 0, int(span[0])) + 1, " ".join(text.split()))
