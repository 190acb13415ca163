"""Int8 weights: each row of a matrix as 8-bit integers and one float32 scale; vectors stay float32.

A row is what one output reads, or what one token is. The quantized model computes in float32 as before.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

WEIGHTS = ("float32", "float16", "int8")
"""How weights are kept."""

TOLERANCES = {"float32": 2e-6, "float16": 1e-3, "int8": 5e-2}
"""Largest difference of an output that each may make; of outputs beyond 1 relative to the largest."""

_LARGEST = 127


class Int8(NamedTuple):
    """Hold a matrix: int8 `values` times float32 `scales`, which have extent 1 along a row."""

    values: np.ndarray
    scales: np.ndarray


def quantize(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with every matrix as `Int8`, symmetric, rounded to the nearest."""
    flat = traverse_util.flatten_dict(params, sep="/")
    return traverse_util.unflatten_dict(
        {path: _quantized(path, leaf) for path, leaf in flat.items()}, sep="/"
    )


def dequantize(params: Any) -> Any:
    """Return the float32 parameters that a quantized or float16 tree stands for."""
    return jax.tree.map(_dequantized, params, is_leaf=_is_int8)


def with_weights(params: Mapping[str, Any], weights: str) -> Any:
    """Return the parameters as one of `WEIGHTS` keeps them."""
    if weights == "int8":
        return quantize(params)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.dtype(weights)), params)


def num_bytes(params: Any) -> int:
    """Return what the parameters take, scales among them."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(params))


def _quantized(path: str, leaf: Any) -> Any:
    leaf = np.asarray(leaf, np.float32)
    if path.endswith(("embedding", "decoder/kernel")):  # [V, D], a row a token
        axis = -1
    elif path.endswith(("kernel", "projection")):  # [in, out]
        axis = -2
    else:
        return leaf
    largest = np.abs(leaf).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(_LARGEST), np.float32(1))
    return Int8(np.rint(leaf / scales).astype(np.int8), scales)


def _dequantized(leaf: Any) -> np.ndarray:
    if _is_int8(leaf):
        return leaf.values.astype(np.float32) * leaf.scales
    return np.asarray(leaf, np.float32)


def _is_int8(leaf: Any) -> bool:
    return isinstance(leaf, Int8)
