"""What a hash function makes of a vocabulary: collisions, likeness of inflected words, nearest neighbours."""

import collections
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eelbert_jax.hashing.reference import code_points, hash_table, reference_signatures
from eelbert_jax.hashing.spec import HashSpec

SUFFIXES = ("s", "ed", "ing", "er", "ly")
_SHORTEST_STEM = 3


class Likeness(NamedTuple):
    """Mean cosine of pairs of words: those that are inflections of each other, and as many random ones."""

    num_pairs: int
    inflected: float
    random: float


def collision_groups(spec: HashSpec, tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the groups of tokens that have one vector, whatever the seed: the largest first.

    A mean over grams does not see how often all of them repeat: tokens collide where every part has the same
    signatures in the same proportions, as in `000` and `0000`.
    """
    signatures, counts = reference_signatures(spec, *code_points(tokens))
    has_width = [True] * spec.max_gram if isinstance(spec.split, str) else [width > 0 for width in spec.split]
    seen = np.flatnonzero(has_width + [True] * (spec.num_parts - spec.max_gram))
    groups = collections.defaultdict(list)
    for token, rows, lengths in zip(tokens, signatures, counts, strict=True):
        groups[tuple(_proportions(rows[part, : lengths[part]].tolist()) for part in seen)].append(token)
    return sorted((tuple(group) for group in groups.values() if len(group) > 1), key=len, reverse=True)


def inflected_pairs(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs (word, word + suffix) that are both tokens; `corn` and `corner` are taken for one."""
    known = set(tokens)
    stems = [token for token in tokens if len(token) >= _SHORTEST_STEM and token.isalpha()]
    return [(stem, stem + suffix) for stem in stems for suffix in SUFFIXES if stem + suffix in known]


def likeness(spec: HashSpec, tokens: Sequence[str], d: int, seed: int = 0) -> Likeness:
    """Return the mean cosine of inflected words beside that of random ones; NaN for fewer than two pairs."""
    pairs = inflected_pairs(tokens)
    if len(pairs) < 2:
        return Likeness(len(pairs), math.nan, math.nan)
    stems, inflections = (_unit_rows(hash_table(spec, words, d)) for words in zip(*pairs, strict=True))
    order = np.random.default_rng(seed).permutation(len(pairs))
    inflected = np.einsum("pd,pd->p", stems, inflections)
    # The next pair of a random order is never the pair itself.
    others = np.einsum("pd,pd->p", stems[order], inflections[np.roll(order, 1)])
    return Likeness(len(pairs), float(inflected.mean()), float(others.mean()))


def nearest_neighbours(
    words: Sequence[str], spec: HashSpec, tokens: Sequence[str], d: int, count: int = 5
) -> dict[str, list[tuple[str, float]]]:
    """Return the `count` tokens of the largest cosine to each word, itself left out, and the cosines."""
    cosines = _unit_rows(hash_table(spec, words, d)) @ _unit_rows(hash_table(spec, tokens, d)).T
    nearest = {}
    for word, row in zip(words, cosines, strict=True):
        order = (i for i in np.argsort(-row, kind="stable") if tokens[i] != word)
        nearest[word] = [(tokens[i], float(row[i])) for i in itertools.islice(order, count)]
    return nearest


def _proportions(signatures: list[int]) -> tuple[tuple[int, int], ...]:
    """Return the distinct signatures in order, with how often each comes in lowest terms."""
    counted = collections.Counter(signatures)
    divisor = math.gcd(*counted.values())
    return tuple(sorted((signature, count // divisor) for signature, count in counted.items()))


def _unit_rows(table: np.ndarray) -> np.ndarray:
    table = table.astype(np.float64)
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(norms > 0, norms, 1.0)
