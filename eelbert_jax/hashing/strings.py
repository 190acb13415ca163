"""Strings as integer arrays, in the one layout that the hash and the vocabulary share.

A room of its own because neither of the two may know the other: the hash must not import a tokenizer, and a
process that only tokenizes must not import JAX.
"""

from collections.abc import Sequence

import numpy as np


def code_points(strings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Spell strings as Unicode code points.

    Code points and not bytes, so that one character is one step of a gram in every script. Source: ours.

    Args:
      strings: V strings, of any length including 0; a lone surrogate is a code point like any other.

    Returns:
      uint32 [V, C], zero-padded on the right, C the longest length (at least 1, so that the array is never
      empty), and the lengths, int32 [V].
    """
    lengths = np.fromiter(map(len, strings), np.int32, len(strings))
    padded = np.zeros((len(strings), max(1, lengths.max(initial=0))), np.uint32)
    joined = "".join(strings).encode("utf-32-le", "surrogatepass")
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.frombuffer(joined, "<u4")
    return padded, lengths
