"""The hash's independent truth, from the paper's steps: Python integers and scalar float32, no array maths.

Nothing of the package is in it but the description of a function, `HashSpec`.
"""

import itertools

import numpy as np

from eelbert_jax.hashing.spec import HashSpec

MODULI = [
    2,
    3,
    255,
    256,
    65521,
    65535,
    65536,
    65537,
    10**9 + 7,
    2**31,
    2**31 + 11,
    2**32 - 5,
    2**32 - 1,
    2**32,
]
MORE_OPTIONS = HashSpec(
    continuation="strip", short_tokens="zero", scale=0.02, whole_token_width=5, max_gram=4, seed=7
)


def grams_of(token, i, spec):
    if spec.continuation == "strip" and token.startswith("##") and len(token) > 2:
        token = token[2:]
    if i == "whole":
        return [token]
    if len(token) < i:
        return [token] if spec.short_tokens == "whole" else []
    return [token[start : start + i] for start in range(len(token) - i + 1)]


def rolling_hash(gram, spec):
    value = 0
    for character in gram:
        value = (value * spec.base + ord(character)) % spec.bucket_size
    return value


def parts_of(spec):
    return [*range(1, spec.max_gram + 1)] + ["whole"] * (spec.whole_token_width > 0)


def true_signatures(token, spec):
    return [[rolling_hash(gram, spec) for gram in grams_of(token, i, spec)] for i in parts_of(spec)]


def true_table(tokens, d, spec):
    modulus, limit = spec.bucket_size, 1.0 if spec.scale is None else spec.scale
    signatures, seeds, columns = (
        [true_signatures(token, spec) for token in tokens],
        iter(true_seeds(spec, d)),
        [],
    )
    for part, width in enumerate(spec.widths(d)):
        weights = [limit * 2 / (modulus * len(grams[part])) if grams[part] else 0.0 for grams in signatures]
        for _ in range(width):
            seed, total = next(seeds), np.zeros(len(tokens), np.float32)
            centred = [
                [centre(gram * seed % modulus, modulus) for gram in grams[part]] for grams in signatures
            ]
            for one_gram_a_token in itertools.zip_longest(*centred, fillvalue=0):
                total += np.array(one_gram_a_token, np.float32)
            columns.append(
                np.clip(total * np.array(weights, np.float32), -np.float32(limit), np.float32(limit))
            )
    return np.stack(columns, axis=1)


def centre(residue, modulus):
    return residue - modulus if residue >= modulus - modulus // 2 else residue


def true_arrays(tokens, spec, columns):
    """Signatures as the package lays them out, uint32 [V, N', C], and counts int32 [V, N']."""
    by_token = [true_signatures(token, spec) for token in tokens]
    padded = [[part + [0] * (columns - len(part)) for part in parts] for parts in by_token]
    return np.array(padded, np.uint32), np.array([[*map(len, parts)] for parts in by_token], np.int32)


def split_mix_64(seed):
    mask, state = 2**64 - 1, seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def true_seeds(spec, d):
    modulus = spec.bucket_size
    power_of_two = modulus.bit_count() == 1
    upper = [z >> 32 for z, _ in zip(split_mix_64(spec.seed), range(d), strict=False)]
    return [(u % modulus) | 1 if power_of_two else 1 + u % (modulus - 1) for u in upper]


def bits(array):
    return np.asarray(array, np.float32).view(np.uint32)
