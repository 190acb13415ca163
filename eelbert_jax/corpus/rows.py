"""Fixed rows of token ids: the files that `prepare` writes and training reads.

A directory has `manifest.json`, a copy of the vocabulary, and for each split flat binary shards of [n, L]
little-endian uint16 or uint32 without a header.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from eelbert_jax.corpus import cache, storage
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import split_mix_64
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary
from eelbert_jax.workdir import MANIFEST_NAME, VOCABULARY_NAME

FORMAT_VERSION = 1
SPLITS = ("train", "heldout")

FEISTEL_ROUNDS = 8
"""Fewer favour some orders of a handful of rows; more change nothing that can be seen."""


def id_dtype(vocab_size: int) -> np.dtype:
    """Return the smallest type for every id: little-endian uint16 up to 65,536 tokens, else uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class RowPacker:
    """Turn one split's stream of tokens into rows: [CLS], L - 2 contiguous tokens, [SEP].

    Documents stand with one [SEP] between them, so that no row is padded.
    """

    def __init__(self, row_length: int, vocabulary: Vocabulary):
        self._row_length = row_length
        self._dtype = id_dtype(vocabulary.size)
        self._cls_id, self._sep_id = vocabulary.cls_id, vocabulary.sep_id
        self._pending: list[np.ndarray] = []
        self._num_pending = 0
        self._new_document = False
        self.num_documents = 0
        self.num_tokens = 0

    def start_document(self) -> None:
        """Let the next tokens begin a document; one without tokens leaves no trace."""
        self._new_document = True

    def add(self, ids: np.ndarray) -> None:
        """Append the tokens of the current document, int [n]."""
        if not len(ids):
            return
        if self._new_document:
            if self.num_documents:
                self._append(np.array([self._sep_id], self._dtype))
            self.num_documents += 1
            self._new_document = False
        self.num_tokens += len(ids)
        self._append(ids.astype(self._dtype))

    def _append(self, ids: np.ndarray) -> None:
        self._pending.append(ids)
        self._num_pending += len(ids)

    @property
    def num_pending(self) -> int:
        """Tokens and separators added and not yet taken."""
        return self._num_pending

    def take_rows(self) -> np.ndarray:
        """Return the complete rows [n, L] and keep what is left for the next ones."""
        width = self._row_length - 2
        stream = np.concatenate([np.empty(0, self._dtype), *self._pending])
        num_rows = len(stream) // width
        rows = np.empty((num_rows, self._row_length), self._dtype)
        rows[:, 0], rows[:, -1] = self._cls_id, self._sep_id
        rows[:, 1:-1] = stream[: num_rows * width].reshape(num_rows, width)
        rest = stream[num_rows * width :]
        self._pending, self._num_pending = [rest.copy()], len(rest)
        return rows


class Rows:
    """Read the rows of one split by global index, memory-mapped."""

    def __init__(
        self,
        directory: Path,
        split: str,
        manifest: dict[str, Any],
        vocabulary: Vocabulary,
        url: str | None = None,
    ):
        self.manifest = manifest
        self.vocabulary = vocabulary
        self.row_length: int = manifest["row_length"]
        self._directory = directory
        self._url = url
        self._dtype = np.dtype(manifest["dtype"])
        self._shards: list[dict[str, Any]] = manifest["splits"][split]["shards"]
        self._ends = np.cumsum([shard["num_rows"] for shard in self._shards], dtype=np.int64)
        self._maps: dict[int, np.ndarray] = {}

    @property
    def lowercase(self) -> bool:
        """Whether the text was lower-cased and stripped of accents."""
        return self.manifest["settings"]["lowercase"]

    @classmethod
    def open(cls, directory: str | os.PathLike[str], split: str) -> "Rows":
        """Open the prepared rows of `split`, "train" or "heldout", in a folder or at a URL.

        Raises:
          UserError: they are not there whole, or a file has another size or SHA-256 than the manifest says.
        """
        name = storage.canonical(directory).rstrip("/")
        manifest = read_manifest(name)
        if split not in manifest["splits"]:
            raise UserError(f"{name} has no split {split!r}; it has {', '.join(manifest['splits'])}.")
        if not manifest["splits"][split]["num_rows"]:
            raise UserError(f"Split {split!r} of {name} has no row. Prepare more text, or hold out more.")
        url = name if storage.is_url(name) else None
        folder = _fetch(url, manifest, split) if url else Path(name)
        vocabulary = load_vocabulary(folder / VOCABULARY_NAME)
        if vocabulary.fingerprint != manifest["vocabulary"]["fingerprint"]:
            raise UserError(
                f"{name}/{VOCABULARY_NAME} has fingerprint {vocabulary.fingerprint}, and the rows were "
                f"made with {manifest['vocabulary']['fingerprint']}. Restore that file or prepare again."
            )
        rows = cls(folder, split, manifest, vocabulary, url)
        for shard in rows._shards:
            rows._check_size(shard)
        return rows

    def _check_size(self, shard: dict[str, Any]) -> None:
        path = self._directory / shard["file"]
        expected = _shard_bytes(self.manifest, shard)
        size = path.stat().st_size if path.is_file() else None
        if size != expected:
            got = "is missing" if size is None else f"has {size} bytes"
            raise UserError(
                f"{path} {got}; the manifest says {expected} bytes. Copy it again or prepare again."
            )

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """Return rows by int64 index [n] as [n, L]; an id past the vocabulary's size is a `UserError`."""
        indices = np.asarray(indices, np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(
                f"Row indices must lie in [0, {len(self)}), got {indices.min()}..{indices.max()}."
            )
        rows = np.empty((len(indices), self.row_length), self._dtype)
        shard_numbers = np.searchsorted(self._ends, indices, side="right")
        for number in np.unique(shard_numbers).tolist():
            here = shard_numbers == number
            local = indices[here] - self._starts(number)
            found = self._shard(number)[local]
            self._check_ids(found, local, number)
            rows[here] = found
        return rows

    def _starts(self, number: int) -> int:
        return int(self._ends[number]) - self._shards[number]["num_rows"]

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._maps:
            shard = self._shards[number]
            self._maps[number] = np.memmap(
                self._directory / shard["file"], self._dtype, "r", shape=(shard["num_rows"], self.row_length)
            )
        return self._maps[number]

    def _check_ids(self, rows: np.ndarray, local: np.ndarray, number: int) -> None:
        """Refuse ids that a gather would clamp silently."""
        bad = np.argwhere(rows >= self.vocabulary.size)
        if len(bad):
            row, column = int(local[bad[0, 0]]), int(bad[0, 1])
            offset = (row * self.row_length + column) * self._dtype.itemsize
            raise UserError(
                f"{self._directory / self._shards[number]['file']}, row {row}, byte {offset}: id "
                f"{rows[tuple(bad[0])]} is not below the vocabulary's size {self.vocabulary.size}. "
                "The file was changed after it was written; copy it again or prepare again."
            )

    def verify(self) -> None:
        """Compare every shard's SHA-256 with the manifest's; copy a bad copy from a store once more."""
        for number, shard in enumerate(self._shards):
            path = self._directory / shard["file"]
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == shard["sha256"]:
                continue
            if self._url is None:
                raise UserError(
                    f"{path} has SHA-256 {digest}, the manifest says {shard['sha256']}. "
                    "The file was changed after it was written; copy it again or prepare again."
                )
            cache.copy_again(self._url, self._directory, shard["file"], shard["sha256"])
            self._maps.pop(number, None)

    def decode(self, rows: np.ndarray) -> list[str]:
        """Return the text of rows [n, L], without their [CLS] and [SEP], words apart by single spaces."""
        words = np.array(self.vocabulary.tokens, object)
        return [" ".join(words[row[1:-1]]).replace(" ##", "") for row in rows]


def read_manifest(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the manifest of prepared rows in a folder or at a URL."""
    directory = storage.canonical(directory)
    path = f"{directory}/{MANIFEST_NAME}"
    try:
        manifest = json.loads(storage.read_bytes(path))
    except OSError as error:
        raise UserError(
            f"No prepared rows in {directory} ({MANIFEST_NAME}: {error.strerror}). Run `eelbert prepare "
            f"--workdir={directory}`; if it was interrupted, the same command again finishes it."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). Copy it again or prepare again.") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this program reads {FORMAT_VERSION}. Prepare the rows "
            "again."
        )
    return manifest


def _fetch(url: str, manifest: dict[str, Any], split: str) -> Path:
    files: dict[str, cache.Content | None] = {VOCABULARY_NAME: None}
    for shard in manifest["splits"][split]["shards"]:
        files[shard["file"]] = cache.Content(shard["sha256"], _shard_bytes(manifest, shard))
    identity = json.dumps(manifest, sort_keys=True).encode()
    return cache.local_copy(url, identity, files)


def _shard_bytes(manifest: dict[str, Any], shard: dict[str, Any]) -> int:
    return shard["num_rows"] * manifest["row_length"] * np.dtype(manifest["dtype"]).itemsize


def row_indices(seed: int, step: int, batch_size: int, num_rows: int, num_steps: int = 1) -> np.ndarray:
    """Return the rows of batch `step` of an endless shuffled reading, int64 [B]; a batch may span two epochs.

    Of several steps from `step` on, those of one after the other, [num_steps * B].

    A pure function, so that the position in the data is the step and nothing else has to be saved. Epoch e is
    a keyed bijection of [0, num_rows): a Feistel network over the next even power of two, applied again while
    it leaves the range (cycle walking; Black and Rogaway 2002). Memory is O(batch_size).
    """
    if num_rows < 1 or batch_size < 1 or step < 0:
        raise UserError(
            "row_indices needs num_rows >= 1, batch_size >= 1 and step >= 0, "
            f"got {num_rows}, {batch_size} and {step}."
        )
    epochs, offsets = np.divmod(
        np.uint64(step * batch_size) + np.arange(num_steps * batch_size, dtype=np.uint64), num_rows
    )
    keys = split_mix_64(np.uint64(seed % 2**64) + split_mix_64(epochs))
    half = np.uint64(((num_rows - 1).bit_length() + 1) // 2)
    values = _feistel(offsets, keys, half)
    while (outside := np.flatnonzero(values >= num_rows)).size:
        values[outside] = _feistel(values[outside], keys[outside], half)
    return values.astype(np.int64)


def _feistel(values: np.ndarray, keys: np.ndarray, half: np.uint64) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for number in range(FEISTEL_ROUNDS):
        left, right = right, left ^ (split_mix_64(right + split_mix_64(keys + np.uint64(number))) & mask)
    return (left << half) | right


def unigram_entropy(rows: np.ndarray, special_ids: Iterable[int]) -> float:
    """Return the entropy in nats of the tokens' frequencies, of rows [n, L] without the special tokens.

    No model that ignores the context can have a lower loss; what lies below was learned from context.
    """
    shares = _shares(rows, special_ids)
    return float(-np.sum(shares * np.log(shares)))


def unigram_accuracy(rows: np.ndarray, special_ids: Iterable[int]) -> float:
    """Return how often the most frequent token is right, of rows [n, L] without the special tokens."""
    return float(np.max(_shares(rows, special_ids)))


def _shares(rows: np.ndarray, special_ids: Iterable[int]) -> np.ndarray:
    counts = np.bincount(rows.ravel())
    counts[[i for i in special_ids if i < len(counts)]] = 0
    return counts[counts > 0] / counts.sum()
