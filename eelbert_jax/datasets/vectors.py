"""A teacher's vectors of sentences, computed once: float16 shards beside the ids, with checksums.

A shard is a safetensors file: "ids" of all its sentences, one after another, "lengths", "vectors" [n, S].
The manifest says of which teacher and text the folder is and vouches for every shard that is there.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from eelbert_jax.datasets.encoding import Encoded, encoded_rows, text_encoder
from eelbert_jax.datasets.splits import Split
from eelbert_jax.datasets.typos import noised
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary, save_vocabulary
from eelbert_jax.workdir import (
    MANIFEST_NAME,
    VECTORS_NAME,
    VOCABULARY_NAME,
    read_json,
    write_json,
    write_whole,
)

SHARD_SENTENCES = 4096
"""Sentences a shard: what a kill can cost, about ten seconds of a small teacher."""


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors [n, S] at length 1; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def text_fingerprint(ids: Iterable[np.ndarray]) -> str:
    """Identify sentences and their order: 16 hex digits."""
    digest = hashlib.sha256()
    for row in ids:
        digest.update(len(row).to_bytes(4, "little") + row.astype("<u4").tobytes())
    return digest.hexdigest()[:16]


def write_vectors(
    workdir: Path,
    ids: Sequence[np.ndarray],
    vectors_of: Callable[[Encoded], np.ndarray],
    vocabulary: Vocabulary,
    identity: Mapping[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Write the shards that are missing, in order, and return the manifest.

    Args:
      vectors_of: gives the vectors [n, S] of some sentences.
      identity: what the vectors are of, as JSON values; "vocabulary" and "max_length" are read again.
      progress: told how many of all sentences are done.

    Raises:
      UserError: the folder holds vectors of another identity.
    """
    manifest = _begin(workdir, {**identity, "num_sentences": len(ids), "shard_sentences": SHARD_SENTENCES})
    save_vocabulary(vocabulary, workdir / VOCABULARY_NAME)
    (workdir / VECTORS_NAME).mkdir(exist_ok=True)
    for start in range(len(manifest["shards"]) * SHARD_SENTENCES, len(ids), SHARD_SENTENCES):
        part = ids[start : start + SHARD_SENTENCES]
        vectors = vectors_of(encoded_rows(part, identity["max_length"], vocabulary.pad_id))
        if not np.all(np.isfinite(vectors)):
            raise UserError("The teacher gives a vector that is not finite; name another teacher.")
        content = save(
            {
                "ids": np.concatenate(part),
                "lengths": np.array([len(row) for row in part], np.uint16),
                "vectors": vectors.astype(np.float16),
            }
        )
        name = f"{VECTORS_NAME}/{start // SHARD_SENTENCES:06d}.safetensors"
        write_whole(workdir / name, content)
        manifest["shards"].append({"file": name, "sha256": hashlib.sha256(content).hexdigest()})
        write_json(workdir / MANIFEST_NAME, manifest)
        progress(start + len(part), len(ids))
    return manifest


def _begin(workdir: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    path = workdir / MANIFEST_NAME
    if not path.is_file():
        fresh: dict[str, Any] = {"identity": dict(identity), "shards": []}
        write_json(path, fresh)
        return fresh
    manifest = _read_manifest(path)
    before = manifest["identity"]
    changed = [
        f"{key}: {before.get(key)} there, {value} now"
        for key, value in identity.items()
        if before.get(key) != value
    ]
    if changed:
        raise UserError(
            f"{workdir} holds vectors of another teacher or text ({'; '.join(changed)}). Take another "
            "--workdir, or name the teacher and the text of this one."
        )
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    if "identity" not in manifest or "shards" not in manifest:
        raise UserError(f"{path} is no manifest of vectors; name the workdir of `eelbert embed`.")
    return manifest


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Sentences and a teacher's vectors of them, in memory: of 384 entries 768 bytes a sentence.

    Attributes:
      identity: what they are of.
      ids: integers [l] each, the shortest first.
      values: float16 [n, S].
    """

    identity: dict[str, Any]
    vocabulary: Vocabulary
    ids: tuple[np.ndarray, ...]
    values: np.ndarray

    @classmethod
    def open(cls, directory: str | Path) -> "Vectors":
        """Read what `eelbert embed` wrote.

        Raises:
          UserError: it is not finished, or a file has another SHA-256 than the manifest says.
        """
        folder = Path(directory).expanduser()
        if not (folder / MANIFEST_NAME).is_file():
            raise UserError(f"{folder} holds no vectors: run `eelbert embed --workdir={folder}` first.")
        manifest = _read_manifest(folder / MANIFEST_NAME)
        identity = manifest["identity"]
        vocabulary = load_vocabulary(folder / VOCABULARY_NAME)
        if vocabulary.fingerprint != identity["vocabulary"]:
            raise UserError(
                f"{folder / VOCABULARY_NAME} is not the vocabulary that the vectors were made with; restore "
                "it."
            )
        if len(manifest["shards"]) * identity["shard_sentences"] < identity["num_sentences"]:
            raise UserError(f"{folder} is not finished; run the same `eelbert embed` again, it continues.")
        shards = [_read_shard(folder, shard) for shard in manifest["shards"]]
        ids = [
            row
            for shard in shards
            for row in np.split(shard["ids"], np.cumsum(shard["lengths"], dtype=np.int64)[:-1])
        ]
        return cls(identity, vocabulary, tuple(ids), np.concatenate([shard["vectors"] for shard in shards]))

    def in_vocabulary(self, vocabulary: Vocabulary) -> "Vectors":
        """Return the sentences in the tokens of another vocabulary, less those of unknown tokens."""
        return self._rewritten(vocabulary, lambda texts: texts)

    def noised(self, percent: float, seed: int) -> "Vectors":
        """Return the sentences with errors, see `typos.noised`, less those of unknown tokens.

        The vectors stay those of the sentences as they were.
        """
        return self._rewritten(self.vocabulary, lambda texts: noised(texts, percent, seed))

    def _rewritten(
        self, vocabulary: Vocabulary, change: Callable[[Sequence[str]], Sequence[str]]
    ) -> "Vectors":
        encoder = text_encoder(vocabulary, self.identity["lowercase"])
        known = [i for i, row in enumerate(self.ids) if self.vocabulary.unk_id not in row]
        words = [" ".join(self.vocabulary.spelling(token) for token in self.ids[i][1:-1]) for i in known]
        texts = change([text.replace(" ##", "") for text in words])
        rows = [vocabulary.row(encoder.encode(text))[0] for text in texts]
        order = sorted(range(len(known)), key=lambda i: len(rows[i]))
        ids = tuple(rows[i] for i in order)
        return Vectors(self.identity, vocabulary, ids, self.values[[known[i] for i in order]])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every sentence, int64 [n]."""
        return np.array([len(row) for row in self.ids])

    def splits(
        self, max_length: int, heldout_every: int, noise_percent: float = 0.0, seed: int = 0
    ) -> tuple[Split, Split]:
        """Return training and held-out sentences of at most `max_length` tokens; one of many is held out.

        Of the words of the former `noise_percent` have an error each.
        """
        short = np.flatnonzero(self.lengths <= max_length)
        is_heldout = np.arange(len(short)) % heldout_every == 0
        if is_heldout.all() or not is_heldout.any():
            raise UserError(
                f"{len(short)} sentences have at most {max_length} tokens, and one of {heldout_every} is "
                "held out: embed more, or set --config.max_length and --config.heldout_every."
            )
        train, heldout = self._of(short[~is_heldout]), self._of(short[is_heldout])
        if noise_percent:
            train = train.noised(noise_percent, seed)
            train = train._of(np.flatnonzero(train.lengths <= max_length))
        return train._split(max_length), heldout._split(max_length)

    def _of(self, rows: np.ndarray) -> "Vectors":
        return Vectors(
            self.identity, self.vocabulary, tuple(self.ids[row] for row in rows), self.values[rows]
        )

    def _split(self, max_length: int) -> Split:
        return Split(encoded_rows(self.ids, max_length, self.vocabulary.pad_id), self.values)


def _read_shard(folder: Path, shard: Mapping[str, str]) -> dict[str, np.ndarray]:
    path = folder / shard["file"]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; copy it again or embed again.") from error
    if hashlib.sha256(content).hexdigest() != shard["sha256"]:
        raise UserError(f"{path} was changed after it was written; copy it again or embed again.")
    return load(content)
