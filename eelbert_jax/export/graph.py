"""Write an ONNX graph node by node: operations, constants, and weights as they are kept."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from eelbert_jax.compress.quantize import Int8

OPSET, IR_VERSION = 17, 8
"""The first opset with LayerNormalization: runtimes of 2022 and later read it."""


class Graph:
    """Collect nodes; a value is known by its name. Every node has a name: onnxruntime 1.20 wants that.

    `within` is the graph around the body of a loop, which sees all that stands there.
    """

    def __init__(self, within: "Graph | None" = None) -> None:
        self._root: Graph = within._root if within else self
        self._nodes: list[onnx.NodeProto] = []
        if within is None:
            self._initializers: dict[str, onnx.TensorProto] = {}
            self._values: dict[str, str] = {}
            self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
            self._numbers = itertools.count()

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node of one output and return that; its `name` stands in what a runtime says of a failure."""
        return self._add(kind, inputs, 1, attributes, name)[0]

    def constant(self, value: Any, dtype: Any) -> str:
        """Return a constant, which stands once in the file however often it is asked for."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._root._constants:
            name = f"c{len(self._root._constants)}"
            self._root._constants[key] = self.initializer(name, array)
        return self._root._constants[key]

    def initializer(self, name: str, array: np.ndarray) -> str:
        """Return a named tensor of the file."""
        self._root._initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def weight(self, path: str, leaf: np.ndarray | Int8) -> str:
        """Return the float32 value of a parameter; runtimes compute it once, when they load the file."""
        if path not in self._root._values:
            self._root._values[path] = self._float32(*self._stored(path, leaf))
        return self._root._values[path]

    def rows(self, path: str, leaf: np.ndarray | Int8, ids: str, name: str | None = None) -> str:
        """Return float32 rows of a table that stays as it is kept; `name` is of what reads its values."""
        values, *scales = self._stored(path, leaf)
        found = [self.op("Gather", values, ids, axis=0, name=name)]
        return self._float32(*found, *(self.op("Gather", part, ids, axis=0) for part in scales))

    def scan(
        self, body: Callable[..., Sequence[str]], states: Sequence[str], rows: Sequence[str]
    ) -> list[str]:
        """Fold `body(inner, *states, *one row of each)` over the first axis; return the last states.

        States and rows are float32 states and rows of one integer type; a body returns the next states.
        """
        inner = Graph(within=self)
        number = next(self._root._numbers)
        state_names = [f"state_{number}_{i}" for i in range(len(states))]
        row_names = [f"row_{number}_{i}" for i in range(len(rows))]
        outputs = body(inner, *state_names, *row_names)
        infos = [helper.make_empty_tensor_value_info(name) for name in (*state_names, *row_names)]
        results = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(inner._nodes, f"body_{number}", infos, results)
        return self._add("Scan", (*states, *rows), len(states), {"body": graph, "num_scan_inputs": len(rows)})

    def dense(self, path: str, params: Any, inputs: str) -> str:
        """Return `inputs @ kernel + bias`."""
        product = self.op("MatMul", inputs, self.weight(f"{path}/kernel", params["kernel"]))
        return self.op("Add", product, self.weight(f"{path}/bias", params["bias"]))

    def layer_norm(self, path: str, params: Any, inputs: str, epsilon: float) -> str:
        """Return the LayerNorm over the last axis."""
        scale, bias = (self.weight(f"{path}/{name}", params[name]) for name in ("scale", "bias"))
        return self.op("LayerNormalization", inputs, scale, bias, axis=-1, epsilon=epsilon)

    def model(
        self,
        inputs: dict[str, tuple[int, Sequence[str | int]]],
        outputs: dict[str, tuple[str, Sequence[str | int]]],
    ) -> onnx.ModelProto:
        """Return the checked model.

        Args:
          inputs: element type and shape by name; a string is an extent that may vary.
          outputs: float32 value and shape by name.
        """
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name], name=f"Identity_{name}"))
        graph = helper.make_graph(
            self._nodes,
            "eelbert",
            [helper.make_tensor_value_info(name, *info) for name, info in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, (_, shape) in outputs.items()],
            list(self._initializers.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="eelbert_jax"
        )
        onnx.checker.check_model(model)
        return model

    def _add(
        self,
        kind: str,
        inputs: Sequence[str],
        num_outputs: int,
        attributes: dict[str, Any],
        name: str | None = None,
    ) -> list[str]:
        name = name or f"n{next(self._root._numbers)}"  # short: names are a tenth of a small file
        outputs = [name, *(f"{name}_{i}" for i in range(1, num_outputs))]
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, name=name, **attributes))
        return outputs

    def _stored(self, path: str, leaf: np.ndarray | Int8) -> list[str]:
        if not isinstance(leaf, Int8):
            return [self.initializer(path, np.asarray(leaf))]
        return [self.initializer(path, leaf.values), self.initializer(f"{path}/scales", leaf.scales)]

    def _float32(self, values: str, scales: str | None = None) -> str:
        cast = self.op("Cast", values, to=TensorProto.FLOAT)
        return self.op("Mul", cast, scales) if scales else cast
