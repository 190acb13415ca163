"""The paper's steps 1-6 in NumPy, exact for every B, free of JAX: what the cached table is made with."""

from collections.abc import Sequence

import numpy as np

from eelbert_jax.hashing.spec import HashSpec, hash_seeds, mean_weights, value_limit

_ROWS_AT_ONCE = 2048
"""Tokens whose projections are held at a time: bounds the memory whatever V, and stays in cache."""


def hash_table(spec: HashSpec, tokens: Sequence[str], d: int) -> np.ndarray:
    """Return the vectors of V tokens, float32 [V, d]: the cached table."""
    signatures, counts = reference_signatures(spec, *code_points(tokens))
    return reference_embedding(spec, signatures, counts, d)


def code_points(strings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return strings as code points, uint32 [V, C], zero-padded, C >= 1, and their lengths, int32 [V]."""
    lengths = np.fromiter(map(len, strings), np.int32, len(strings))
    padded = np.zeros((len(strings), max(1, lengths.max(initial=0))), np.uint32)
    joined = "".join(strings).encode("utf-32-le", "surrogatepass")
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.frombuffer(joined, "<u4")
    return padded, lengths


def reference_signatures(
    spec: HashSpec, characters: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hash the grams (step 2): signatures uint32 [V, N', C], counts int32 [V, N'], as `steps` gives them."""
    if spec.continuation == "strip":
        characters, lengths = _without_marks(characters, lengths)
    modulus = np.uint64(spec.bucket_size)
    characters = characters.astype(np.uint64) % modulus
    columns = characters.shape[1]
    signatures = np.zeros((len(lengths), spec.num_parts, columns), np.uint32)
    counts = np.ones((len(lengths), spec.num_parts), np.int32)
    rolling = np.zeros_like(characters)
    for i in range(1, spec.max_gram + 1):
        ahead = np.zeros_like(characters)
        ahead[:, : max(0, columns - i + 1)] = characters[:, i - 1 :]
        longer = (rolling * np.uint64(spec.base) + ahead) % modulus
        longer[np.arange(columns) > lengths[:, None] - i] = 0
        is_short = lengths < i
        if spec.short_tokens == "whole":
            longer[is_short] = rolling[is_short]
        rolling = longer
        signatures[:, i - 1] = rolling
        counts[:, i - 1] = np.where(is_short, int(spec.short_tokens == "whole"), lengths - i + 1)
    if spec.whole_token_width:
        whole = np.zeros(len(lengths), np.uint64)
        for column in range(columns):
            longer = (whole * np.uint64(spec.base) + characters[:, column]) % modulus
            whole = np.where(column < lengths, longer, whole)
        signatures[:, -1, 0] = whole
    return signatures, counts


def reference_embedding(spec: HashSpec, signatures: np.ndarray, counts: np.ndarray, d: int) -> np.ndarray:
    """Project, centre, pool and concatenate (steps 3-6) to float32 [V, d], as `steps.embed_signatures`."""
    seeds = hash_seeds(spec, d)
    table = np.zeros((len(signatures), d), np.float32)
    for start in range(0, len(signatures), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        stop = 0
        for part, width in enumerate(spec.widths(d)):
            start_column, stop = stop, stop + width
            table[rows, start_column:stop] = _pooled(
                spec, signatures[rows, part], counts[rows, part], seeds[start_column:stop]
            )
    return table


def _pooled(spec: HashSpec, signatures: np.ndarray, counts: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the mean of one part's centred projections, float32 [V, d_i]; signatures are [V, K]."""
    modulus = np.uint64(spec.bucket_size)
    wraps_from = np.uint64(spec.bucket_size - spec.bucket_size // 2)
    totals = np.zeros((len(signatures), len(seeds)), np.float32)
    for gram in range(counts.max(initial=0)):
        rows = np.flatnonzero(counts > gram)
        projected = signatures[rows, gram, None].astype(np.uint64) * seeds.astype(np.uint64) % modulus
        centred = projected.astype(np.int64) - np.where(projected >= wraps_from, spec.bucket_size, 0)
        totals[rows] += centred.astype(np.float32)
    weights = mean_weights(spec, signatures.shape[1])[counts]
    limit = np.float32(value_limit(spec))
    return np.clip(totals * weights[:, None], -limit, limit)


def _without_marks(characters: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    marks = characters[:, :2] == ord("#")
    is_continuation = (lengths > 2) & marks.all(axis=1)
    shifted = np.zeros_like(characters)
    shifted[:, :-2] = characters[:, 2:]
    return np.where(is_continuation[:, None], shifted, characters), lengths - 2 * is_continuation
