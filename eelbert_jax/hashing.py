"""The n-gram pooling hash of EELBERT: `HashSpec` and its seeds (the paper's steps follow in the next commit)."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping

import numpy as np

from eelbert_jax.errors import UserError

ALGORITHM = "eelbert-hash-1"
"""Enters every fingerprint; to be changed with any change of the arithmetic that changes bits."""

CONTINUATIONS = ("keep", "strip")
SHORT_TOKENS = ("whole", "zero")

_MAX_BUCKET_SIZE = 2**32


@dataclasses.dataclass(frozen=True)
class HashSpec:
    """Describe one hash function completely: two equal specs give equal bits.

    The paper leaves N, B, base, the split of d and the treatment of short tokens, `##` and code points open;
    each is a field here, so that a checkpoint can name what it was trained with. Special tokens are hashed
    like any other and a token is its Unicode code points, case and accents as the vocabulary spells them.
    Source: EELBERT section 3 (N, base, B, seed, split); the values are ours.

    Attributes:
      max_gram: N, longest gram, in code points; at least 1.
      base: multiplier of the rolling hash h = (h * base + code point) mod B; in [1, 2^32).
      bucket_size: B, modulus of the rolling hash and of the projection; in [2, 2^32].
      seed: the one integer that regenerates all hash seeds; in [0, 2^64).
      split: "proportional" (d_i proportional to i, by largest remainder) or N explicit widths.
      continuation: "keep" hashes `##ing` with its marks, "strip" without.
      short_tokens: what a token of fewer than i code points has for i-grams: "whole" (one, itself) or "zero"
        (none, so that part of its vector is zero).
      scale: multiplies the vectors, greater than 0; None is the paper's formula (values in [-1, 1]).
      whole_token_width: this many last dimensions hash the whole token as one gram, which removes exact
        collisions such as `000` and `0000`; 0 is the paper's formula.

    Raises:
      UserError: a value is out of range.
    """

    max_gram: int = 3
    base: int = 31
    bucket_size: int = _MAX_BUCKET_SIZE
    seed: int = 42
    split: str | tuple[int, ...] = "proportional"
    continuation: str = "keep"
    short_tokens: str = "whole"
    scale: float | None = None
    whole_token_width: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.split, str):
            object.__setattr__(self, "split", tuple(self.split))
        for name, low, high in (
            ("max_gram", 1, 64),
            ("base", 1, 2**32 - 1),
            ("bucket_size", 2, _MAX_BUCKET_SIZE),
            ("seed", 0, 2**64 - 1),
            ("whole_token_width", 0, 2**16),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise UserError(f"hash.{name} must be an integer in [{low}, {high}], got {value!r}.")
        for name, legal in (("continuation", CONTINUATIONS), ("short_tokens", SHORT_TOKENS)):
            if getattr(self, name) not in legal:
                raise UserError(f"hash.{name}={getattr(self, name)!r} is not one of {', '.join(legal)}.")
        if self.scale is not None and not 0.0 < self.scale < float("inf"):
            raise UserError(f"hash.scale must be a positive number or None, got {self.scale!r}.")
        self._check_split()

    def _check_split(self) -> None:
        if self.split == "proportional":
            return
        if isinstance(self.split, str) or len(self.split) != self.max_gram:
            raise UserError(
                f"hash.split must be 'proportional' or one width for each of the {self.max_gram} gram lengths, "
                f"got {self.split!r}."
            )
        if any(isinstance(width, bool) or not isinstance(width, int) or width < 0 for width in self.split):
            raise UserError(f"hash.split must hold integers that are not negative, got {self.split!r}.")

    @property
    def modulus_is_power_of_two(self) -> bool:
        """Whether `mod B` is uint32 wrap-around and a mask."""
        return self.bucket_size & (self.bucket_size - 1) == 0

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identify the function: 16 hex digits over every field and the version of the algorithm."""
        text = json.dumps({"algorithm": ALGORITHM, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def widths(self, d: int) -> tuple[int, ...]:
        """Return how many dimensions each part has: d_1 .. d_N, then the whole-token part where there is one.

        Args:
          d: width of the embedding.

        Raises:
          UserError: d is too small, or is not what `split` and `whole_token_width` add up to.
        """
        whole = (self.whole_token_width,) if self.whole_token_width else ()
        if not isinstance(self.split, str):
            if sum(self.split) + sum(whole) != d:
                raise UserError(
                    f"hash.split={self.split} and hash.whole_token_width={self.whole_token_width} add up to "
                    f"{sum(self.split) + sum(whole)}, but the embedding is {d} wide; make them agree."
                )
            return self.split + whole
        shares = self.max_gram * (self.max_gram + 1) // 2
        rest = d - sum(whole)
        if rest < shares:
            raise UserError(
                f"An embedding {d} wide is too narrow for max_gram={self.max_gram} and whole_token_width="
                f"{self.whole_token_width}: it takes at least {shares + sum(whole)} dimensions."
            )
        lengths = range(1, self.max_gram + 1)
        widths = [rest * i // shares for i in lengths]
        # Largest remainder first; between equals the longer gram, which is to have the larger part.
        by_remainder = sorted(lengths, key=lambda i: (rest * i % shares, i), reverse=True)
        for i in by_remainder[: rest - sum(widths)]:
            widths[i - 1] += 1
        return tuple(widths) + whole

    def to_dict(self) -> dict:
        """Return the fields as plain JSON types; `from_dict` reads them back."""
        fields = dataclasses.asdict(self)
        fields["split"] = self.split if isinstance(self.split, str) else list(self.split)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping) -> "HashSpec":
        """Build a spec from what `to_dict` gave, or from a part of it.

        Raises:
          UserError: an unknown field, or a value that is out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise UserError(f"Unknown hash field {', '.join(unknown)}; known: {', '.join(sorted(known))}.")
        return cls(**fields)


PRESETS = {
    "default": HashSpec(),
    "reference": HashSpec(bucket_size=10**9 + 7),
}
"""`default`: mod 2^32 is uint32 wrap-around. `reference`: the modulus of the public reimplementations."""


def hash_seeds(spec: HashSpec, d: int) -> np.ndarray:
    """Return the d hash seeds (step 1).

    SplitMix64 of `spec.seed`; its upper 32 bits u become (u mod B) | 1 where B is a power of two (odd, so that
    no signature but 0 is projected to 0), else 1 + u mod (B - 1). Source: ours.

    Args:
      spec: the hash function.
      d: how many.

    Returns:
      uint32 [d], in [1, B - 1].
    """
    with np.errstate(over="ignore"):
        state = np.uint64(spec.seed) + np.arange(1, d + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        upper = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
    if spec.modulus_is_power_of_two:
        return (upper % np.uint64(spec.bucket_size) | np.uint64(1)).astype(np.uint32)
    return (np.uint64(1) + upper % np.uint64(spec.bucket_size - 1)).astype(np.uint32)
