"""The hash of EELBERT section 3 as an ONNX graph: the bits of `hashing.reference`, for every bucket size.

Residues are kept centred, in [-B / 2, B / 2): modulo 2^32 that is what int32 does by itself, else products
fit int64. A projection is then centred as it comes out. Grams are added in their order, as everywhere.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from eelbert_jax.export.graph import Graph
from eelbert_jax.hashing.spec import hash_seeds, mean_weights, random_signatures, value_limit
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.embeddings import hash_of

Part = tuple[str, str]
"""Signatures of a part's grams, centred, [K, M, 1], zeros behind the last, and their counts, int64 [M]."""

KNOWN_IDS = "input_ids_are_of_the_vocabulary"
"""Name of a node that fails otherwise, which is all that a runtime says of it."""


class WordVectors:
    """Compute hashed vectors in `graph`.

    Args:
      tokens: the vocabulary's, by id.
    """

    def __init__(self, graph: Graph, config: BertConfig, tokens: Sequence[str]) -> None:
        self._graph, self._config, self._width = graph, config, config.hash_vector_width
        self._spec = hash_of(config)
        wraps = self._spec.bucket_size == 2**32
        self._dtype = np.dtype(np.int32 if wraps else np.int64)
        self._onnx_type = TensorProto.INT32 if wraps else TensorProto.INT64
        self._strings = [self._hashed(token) for token in tokens]
        self._longest = 1 if config.embedding == "random_hash" else max(map(len, tokens))

    def of_ids(self, ids: str) -> str:
        """Return vectors, float32 [M, W], of ids int64 [M]."""
        if self._config.embedding == "random_hash":
            signatures, _ = random_signatures(self._config.hash, len(self._strings))
            table = self._graph.initializer("signatures", self._centred(signatures.reshape(-1)))
            found = self._graph.op("Gather", table, ids, axis=0, name=KNOWN_IDS)
            return self._pooled([(self._unsqueezed(found, [0, 2]), self._ones(ids))])
        return self._pooled(self._parts(*self._characters(ids)))

    def inputs(self, batch: Sequence[str]) -> dict[str, tuple[int, tuple[Any, ...]]]:
        """Return the inputs of `of_inputs`; signatures are int32 where B is 2^32, else int64."""
        parts = self._spec.num_parts
        return {
            "signatures": (self._onnx_type, (*batch, parts, self._longest)),
            "counts": (TensorProto.INT64, (*batch, parts)),
        }

    def of_inputs(self) -> str:
        """Return vectors, float32 [M, W], of the graph's inputs."""
        graph, parts = self._graph, []
        flat = graph.op("Reshape", "signatures", self._shape(-1, self._spec.num_parts, self._longest))
        counts = graph.op("Reshape", "counts", self._shape(-1, self._spec.num_parts))
        by_part = graph.op("Transpose", self._residue(graph, flat), perm=[1, 2, 0])
        for part in range(self._spec.num_parts):
            grams = graph.op("Gather", by_part, self._int64(part), axis=0)
            parts.append(
                (self._unsqueezed(grams, [2]), graph.op("Gather", counts, self._int64(part), axis=1))
            )
        return self._pooled(parts)

    def _hashed(self, token: str) -> str:
        is_marked = self._spec.continuation == "strip" and token.startswith("##") and len(token) > 2
        return token[2:] if is_marked else token

    def _characters(self, ids: str) -> tuple[str, str]:
        """Return code points [M, K + N - 1], zeros behind the last, and lengths int64 [M].

        The file has the low bytes of all tokens in a row, and what the few beyond Latin-1 have above them.
        """
        graph, columns = self._graph, self._longest + self._spec.max_gram - 1
        sizes = np.array([len(string) for string in self._strings])
        points = np.frombuffer("".join(self._strings).encode("utf-32-le", "surrogatepass"), "<u4")
        points = np.append(
            points, np.zeros(columns, "<u4")
        )  # so that the last token can be read beyond its end
        codes = graph.op("Cast", graph.initializer("characters", points.astype(np.uint8)), to=self._onnx_type)
        gaps, high = _sparse(points >> 8)
        above = graph.op("Cast", graph.initializer("high", high), to=self._onnx_type)
        steps = graph.op("Cast", graph.initializer("high_gaps", gaps), to=TensorProto.INT64)
        places = graph.op("CumSum", steps, self._int64(0))
        zeros, more = graph.op("Sub", codes, codes), graph.op("Mul", above, self._integer(256))
        codes = graph.op("Add", codes, graph.op("ScatterElements", zeros, places, more, axis=0))
        stored = sizes.astype(np.uint8 if sizes.max() < 256 else np.int32)
        all_lengths = graph.op("Cast", graph.initializer("lengths", stored), to=TensorProto.INT64)
        starts = graph.op("CumSum", all_lengths, self._int64(0), exclusive=1)
        lengths = graph.op("Gather", all_lengths, ids, axis=0, name=KNOWN_IDS)
        positions = graph.constant(np.arange(columns), np.int64)
        start = self._unsqueezed(graph.op("Gather", starts, ids, axis=0), [1])
        found = graph.op("Gather", codes, graph.op("Add", start, positions), axis=0)
        inside = graph.op("Less", positions, self._unsqueezed(lengths, [1]))
        return graph.op("Where", inside, found, self._integer(0)), lengths

    def _parts(self, characters: str, lengths: str) -> list[Part]:
        """Return the grams of 1 to N characters, and the whole token where it has a width (step 2)."""
        graph, spec = self._graph, self._spec
        length = self._unsqueezed(lengths, [1])
        base = self._integer(self._centred(spec.base % spec.bucket_size))
        rolling, parts = self._integer(0), []
        for i in range(1, spec.max_gram + 1):
            bounds = (graph.constant([bound], np.int64) for bound in (i - 1, i - 1 + self._longest, 1))
            ahead = graph.op("Slice", characters, *bounds)
            longer = self._residue(graph, graph.op("Add", graph.op("Mul", rolling, base), ahead))
            ends = graph.constant(np.arange(self._longest) + i, np.int64)
            longer = graph.op("Where", graph.op("LessOrEqual", ends, length), longer, self._integer(0))
            if spec.short_tokens == "whole" and i > 1:
                longer = graph.op("Where", graph.op("Less", length, self._int64(i)), rolling, longer)
            rolling = longer
            counts = graph.op("Sub", lengths, self._int64(i - 1))
            counts = graph.op("Max", counts, self._int64(int(spec.short_tokens == "whole")))
            parts.append((self._unsqueezed(graph.op("Transpose", rolling, perm=[1, 0]), [2]), counts))
        if spec.whole_token_width:
            parts.append(
                (self._unsqueezed(self._whole(characters, lengths, base), [0, 2]), self._ones(lengths))
            )
        return parts

    def _whole(self, characters: str, lengths: str, base: str) -> str:
        """Return the signature of each token as one gram, [M]."""
        graph = self._graph
        columns = graph.op("Transpose", characters, perm=[1, 0])

        def roll(inner: Graph, rolled: str, character: str, position: str) -> list[str]:
            longer = self._residue(inner, inner.op("Add", inner.op("Mul", rolled, base), character))
            return [inner.op("Where", inner.op("Less", position, lengths), longer, rolled)]

        width = self._longest + self._spec.max_gram - 1
        start = graph.op("Mul", graph.op("Cast", lengths, to=self._onnx_type), self._integer(0))
        return graph.scan(roll, [start], [columns, graph.constant(np.arange(width), np.int64)])[0]

    def _pooled(self, parts: Sequence[Part]) -> str:
        """Project, centre, pool and concatenate (steps 3 to 6)."""
        graph, spec = self._graph, self._spec
        seeds = self._centred(hash_seeds(spec, self._width))
        weights = graph.constant(mean_weights(spec, self._longest), np.float32)
        limits = [graph.constant(sign * value_limit(spec), np.float32) for sign in (-1, 1)]
        pooled, stop = [], 0
        for (grams, counts), width in zip(parts, spec.widths(self._width), strict=True):
            start, stop = stop, stop + width
            along = graph.constant(seeds[start:stop], self._dtype)
            empty = graph.op("Cast", self._unsqueezed(counts, [1]), to=TensorProto.FLOAT)
            zero = graph.op("Mul", empty, graph.constant(np.zeros(width), np.float32))

            def add(inner: Graph, total: str, gram: str, along: str = along) -> list[str]:
                projected = self._residue(inner, inner.op("Mul", gram, along))
                return [inner.op("Add", total, inner.op("Cast", projected, to=TensorProto.FLOAT))]

            (total,) = graph.scan(add, [zero], [grams])
            mean = graph.op("Mul", total, self._unsqueezed(graph.op("Gather", weights, counts, axis=0), [1]))
            pooled.append(graph.op("Clip", mean, *limits))
        return graph.op("Concat", *pooled, axis=1)

    def _residue(self, graph: Graph, value: str) -> str:
        if self._dtype == np.int32:
            return value
        half = self._integer(self._spec.bucket_size // 2)
        remainder = graph.op("Mod", graph.op("Add", value, half), self._integer(self._spec.bucket_size))
        return graph.op("Sub", remainder, half)

    def _centred(self, residues: np.ndarray | int) -> np.ndarray:
        wide, size = np.asarray(residues, np.int64), self._spec.bucket_size
        return ((wide + size // 2) % size - size // 2).astype(self._dtype)

    def _integer(self, value: int | np.ndarray) -> str:
        return self._graph.constant(value, self._dtype)

    def _int64(self, value: int) -> str:
        return self._graph.constant(value, np.int64)

    def _ones(self, like: str) -> str:
        return self._graph.op("Add", self._graph.op("Mul", like, self._int64(0)), self._int64(1))

    def _shape(self, *extents: int) -> str:
        return self._graph.constant(extents, np.int64)

    def _unsqueezed(self, value: str, axes: list[int]) -> str:
        return self._graph.op("Unsqueeze", value, self._graph.constant(axes, np.int64))


def _sparse(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where values that are not 0 stand, as steps uint8 from the one before, and what they are.

    Zeros stand in between where a step would not fit.
    """
    places = np.flatnonzero(values)
    fillers = np.arange(0, len(values), 255)
    places = np.union1d(places, fillers)
    kept = values[places]
    return np.diff(places, prepend=0).astype(np.uint8), kept.astype(
        np.uint8 if kept.max() < 256 else np.int32
    )
