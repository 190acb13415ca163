"""What a hash function is: `HashSpec`, its presets, and the numbers that one integer regenerates. No JAX."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from eelbert_jax.errors import UserError

ALGORITHM = "eelbert-hash-1"
"""Part of every fingerprint; change it with any change of the arithmetic that changes bits."""

FIRST_FIELDS = (
    "max_gram",
    "base",
    "bucket_size",
    "seed",
    "split",
    "continuation",
    "short_tokens",
    "scale",
    "whole_token_width",
)
"""Fields of the first version of `HashSpec`; see `chosen_fields`."""

CONTINUATIONS = ("keep", "strip")
SHORT_TOKENS = ("whole", "zero")

_SPLIT_MIX_STEP = np.uint64(0x9E3779B97F4A7C15)

_RANDOM_SIGNATURES_START = 2**32
"""Outputs of the generator before this one are seeds, the others are random signatures: never the same."""


def chosen_fields(record: Any, first_fields: Collection[str]) -> dict[str, Any]:
    """Return a dataclass's fields by name, those added since the first version unless at their default.

    So a new field changes neither identity nor fingerprint of what was made before it.
    """
    return {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.name in first_fields or getattr(record, field.name) != field.default
    }


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_integer(value) or isinstance(value, float)


@dataclasses.dataclass(frozen=True)
class HashSpec:
    """Describe one hash function completely: equal specs give equal bits.

    What the paper (EELBERT section 3) leaves open is a field. Special tokens are hashed like any other.

    Attributes:
      max_gram: N, longest gram in code points, in [1, 64].
      base: multiplier of the rolling hash h = (h * base + code point) mod B, in [1, 2^32).
      bucket_size: B, modulus of the rolling hash and of the projection, in [2, 2^32].
      seed: the integer that regenerates all hash seeds, in [0, 2^64).
      split: "proportional" (d_i proportional to i, by largest remainder) or a tuple of N widths.
      continuation: "keep" hashes `##ing` with its marks, "strip" without.
      short_tokens: the i-grams of a token of fewer than i code points: "whole" (one, itself) or "zero"
        (none).
      scale: multiplies the vectors; None is the paper's formula (values in [-1, 1]).
      whole_token_width: so many last dimensions hash the whole token as one gram, which tells `000` and
        `0000` apart; 0 is the paper's formula.
    """

    max_gram: int = 3
    base: int = 31
    bucket_size: int = 2**32
    seed: int = 42
    split: str | tuple[int, ...] = "proportional"
    continuation: str = "keep"
    short_tokens: str = "whole"
    scale: float | None = None
    whole_token_width: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_gram", 1, 64),
            ("base", 1, 2**32 - 1),
            ("bucket_size", 2, 2**32),
            ("seed", 0, 2**64 - 1),
            ("whole_token_width", 0, 2**16),
        ):
            value = getattr(self, name)
            if not _is_integer(value) or not low <= value <= high:
                raise UserError(f"hash.{name} must be an integer in [{low}, {high}], got {value!r}.")
        for name, legal in (("continuation", CONTINUATIONS), ("short_tokens", SHORT_TOKENS)):
            if getattr(self, name) not in legal:
                raise UserError(f"hash.{name}={getattr(self, name)!r} is not one of {', '.join(legal)}.")
        if self.scale is not None and not (_is_number(self.scale) and 0.0 < self.scale < math.inf):
            raise UserError(f"hash.scale must be a positive number or None, got {self.scale!r}.")
        if self.scale is not None:  # so that 1 and 1.0, which are equal, have one fingerprint
            object.__setattr__(self, "scale", float(self.scale))
        if self.split != "proportional" and not (
            isinstance(self.split, tuple)
            and len(self.split) == self.max_gram
            and all(_is_integer(width) and width >= 0 for width in self.split)
        ):
            raise UserError(
                f"hash.split must be 'proportional' or a tuple of hash.max_gram={self.max_gram} widths, "
                f"got {self.split!r}."
            )

    @property
    def is_power_of_two(self) -> bool:
        """Whether `mod B` is uint32 wrap-around and a mask."""
        return self.bucket_size & (self.bucket_size - 1) == 0

    @property
    def runs_on_the_fly(self) -> bool:
        """Whether a product of two residues is exact in uint32, so that a step costs one multiplication."""
        return self.is_power_of_two or self.bucket_size < 2**16

    @property
    def num_parts(self) -> int:
        """Number of parts of a vector: N, and one more for the whole token where it has a width."""
        return self.max_gram + (self.whole_token_width > 0)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identify the function: 16 hex digits over what was chosen and the version of the algorithm."""
        text = json.dumps({"algorithm": ALGORITHM, **self.to_dict()}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def widths(self, d: int) -> tuple[int, ...]:
        """Split d dimensions into `num_parts` parts, the longer gram's first to be rounded up."""
        whole = (self.whole_token_width,) if self.whole_token_width else ()
        if isinstance(self.split, tuple):
            if sum(self.split + whole) != d:
                raise UserError(
                    f"hash.split={self.split} and hash.whole_token_width={self.whole_token_width} add up to "
                    f"{sum(self.split + whole)} dimensions, the embedding has {d}; make them agree."
                )
            return self.split + whole
        shares = self.max_gram * (self.max_gram + 1) // 2
        rest = d - sum(whole)
        if rest < shares:
            raise UserError(
                f"An embedding of {d} dimensions is too narrow for hash.max_gram={self.max_gram} and "
                f"hash.whole_token_width={self.whole_token_width}: it takes at least {shares + sum(whole)}."
            )
        widths = [rest * i // shares for i in range(1, self.max_gram + 1)]
        by_remainder = sorted(
            range(self.max_gram), key=lambda part: (rest * (part + 1) % shares, part), reverse=True
        )
        for part in by_remainder[: rest - sum(widths)]:
            widths[part] += 1
        return tuple(widths) + whole

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types, as `chosen_fields` does; `from_dict` reads them back."""
        split = self.split if isinstance(self.split, str) else list(self.split)
        return {**chosen_fields(self, FIRST_FIELDS), "split": split}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "HashSpec":
        """Build a spec from what `to_dict` gave; a field left out has its default."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise UserError(f"Unknown hash fields: {', '.join(unknown)}; known: {', '.join(known)}.")
        values: dict[str, Any] = dict(fields)
        if isinstance(values.get("split"), list):
            values["split"] = tuple(values["split"])
        return cls(**values)


PRESETS = {
    "default": HashSpec(),
    "reference": HashSpec(bucket_size=10**9 + 7),
}
"""`default`: mod 2^32 is what uint32 does by itself. `reference`: the modulus of public reimplementations."""


def hash_seeds(spec: HashSpec, d: int) -> np.ndarray:
    """Return the hash seeds h (the paper's step 1), uint32 [d], in [1, B - 1].

    Output number j of SplitMix64 (Steele, Lea and Flood 2014) started at `spec.seed` is a function of j
    alone. An odd seed projects no signature but 0 to 0 where B is a power of two. The same in
    JavaScript: `web/encoder.js`.
    """
    upper = _upper_halves(spec.seed, 1, d)
    if spec.is_power_of_two:
        return upper & np.uint32(spec.bucket_size - 1) | np.uint32(1)
    return np.uint32(1) + upper % np.uint32(spec.bucket_size - 1)


def random_hash_spec(spec: HashSpec) -> HashSpec:
    """Return the projection of `random_hash`: one gram a token, mod 2^32; seed and scale of `spec`."""
    return HashSpec(max_gram=1, seed=spec.seed, scale=spec.scale)


def random_signatures(spec: HashSpec, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one pseudo-random signature a token, uint32 [V, 1, 1], and counts int32 [V, 1]: by its id alone.

    The ablation without morphology of EELBERT table 3, to be embedded under `random_hash_spec(spec)`.
    """
    signatures = _upper_halves(spec.seed, _RANDOM_SIGNATURES_START, vocab_size)
    return signatures.reshape(vocab_size, 1, 1), np.ones((vocab_size, 1), np.int32)


def mean_weights(spec: HashSpec, most_grams: int) -> np.ndarray:
    """Return by count what makes a sum of centred integers a mean in [-scale, scale]: float32 [K + 1].

    Rounded here, once, and not a division in the model: accelerators divide float32 only approximately, and
    the bits of a hash must not depend on the device.
    """
    means = [value_limit(spec) * 2 / (spec.bucket_size * count) for count in range(1, most_grams + 1)]
    return np.array([0.0, *means], np.float32)


def value_limit(spec: HashSpec) -> float:
    """Return the largest absolute value that an entry of a vector can have: 1, or `spec.scale`."""
    return 1.0 if spec.scale is None else spec.scale


def split_mix_64(states: np.ndarray) -> np.ndarray:
    """Return the next output of SplitMix64 from each state, uint64 [n]; wrap-around is the modulus 2^64."""
    z = states + _SPLIT_MIX_STEP
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _upper_halves(seed: int, first: int, count: int) -> np.ndarray:
    """Return the upper 32 bits of outputs `first` .. `first + count - 1` from a seed on, uint32 [count]."""
    before = np.uint64(first - 1) + np.arange(count, dtype=np.uint64)
    return (split_mix_64(np.uint64(seed) + before * _SPLIT_MIX_STEP) >> np.uint64(32)).astype(np.uint32)
