"""Texts with errors in them: words left out, letters mistyped."""

import string
from collections.abc import Sequence

import numpy as np

from eelbert_jax.errors import UserError


def noised(texts: Sequence[str], percent: float, seed: int) -> list[str]:
    """Return texts in which `percent` of the words, apart by white space, have one error each.

    A word is left out, or one of its letters is left out, exchanged with the next one or replaced, each as
    likely. A text never loses its last word. A text's errors are a function of (seed, its place).
    """
    if not 0.0 <= percent <= 100.0:
        raise UserError(f"teacher.noise_percent must lie in [0, 100], got {percent}.")
    return [_noised(text, percent / 100, np.random.default_rng([seed, i])) for i, text in enumerate(texts)]


def _noised(text: str, share: float, random: np.random.Generator) -> str:
    words = text.split()
    found = [_mistyped(word, random) if random.random() < share else word for word in words]
    return " ".join(filter(None, found)) or text


def _mistyped(word: str, random: np.random.Generator) -> str:
    kind, place = random.integers(4), int(random.integers(len(word)))
    before, letter, after = word[:place], word[place], word[place + 1 :]
    if kind == 0:
        return ""
    if kind == 1 and len(word) > 1:
        return before + after
    if kind == 2 and after:
        return before + after[0] + letter + after[1:]
    return before + str(random.choice([c for c in string.ascii_lowercase if c != letter.lower()])) + after
