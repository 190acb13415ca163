"""A model as an ONNX graph: what `model.bert` computes, in float32, whatever the weights are kept as."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from eelbert_jax.compress.quantize import with_weights
from eelbert_jax.datasets.tasks import TAG
from eelbert_jax.errors import UserError
from eelbert_jax.export.graph import Graph
from eelbert_jax.export.word_vectors import KNOWN_IDS, WordVectors
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.bert import hash_projection, token_table
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.encoder import unstack_layers

INPUTS = ("ids", "signatures", "vectors")
"""What a graph reads: token ids; of hashed embeddings also signatures, or vectors and which of them a token
has, from who hosts the hash."""

ARCHITECTURES = ("bert", "distilbert")
"""Of which graphs are written."""
BATCH = ("batch_size", "sequence_length")


def model_graph(model: Model, inputs: str, weights: str) -> onnx.ModelProto:
    """Return a model as a graph of three inputs; behind its outputs, "last_hidden_state" comes too.

    They are "logits" of a classifier, a tagger and a masked LM, "sentence_embedding" of a sentence encoder.
    """
    check_inputs(model.config, inputs)
    if model.task is not None and model.task.pair_encoder == "bi":
        raise UserError(
            f"{model.path} reads the texts of a pair apart (pair_encoder=bi), which no graph does: "
            "export the sentence encoder that it started from, and take the cosine."
        )
    graph = Graph()
    params = model.params
    if model.config.scan_layers:
        params = {**params, "bert": {**params["bert"], "encoder": unstack_layers(params["bert"]["encoder"])}}
    params = with_weights(params, weights)
    bert = _Bert(graph, model.config, params["bert"])
    words, of_words = _words(graph, model, params, inputs)
    hidden = bert.encode(words)
    outputs: dict[str, Any] = {"last_hidden_state": (hidden, (*BATCH, model.config.hidden_size))}
    if "projection" in params:
        size = model.config.sentence_size
        outputs = {"sentence_embedding": (_sentences(graph, params, hidden), (BATCH[0], size)), **outputs}
    elif "classifier" in params or "cls" in params:
        outputs = {"logits": _logits(graph, model, params, bert, hidden), **outputs}
    masks = dict.fromkeys(("attention_mask", "token_type_ids"), (TensorProto.INT64, BATCH))
    return graph.model({**of_words, **masks}, outputs)


def word_vector_graph(model: Model) -> onnx.ModelProto:
    """Return the hash alone, projected if wide: ids int64 [n] in, "word_vectors" float32 [n, E] out."""
    check_inputs(model.config, "vectors")
    graph, width = Graph(), model.config.embedding_width
    vectors = WordVectors(graph, model.config, model.vocabulary.tokens).of_ids("input_ids")
    vectors = _projected(graph, model.params, vectors)
    return graph.model({"input_ids": (TensorProto.INT64, ("n",))}, {"word_vectors": (vectors, ("n", width))})


def check_inputs(config: BertConfig, inputs: str) -> None:
    """Refuse an encoder of which no graph is written, and inputs that its embedding has not."""
    if config.architecture not in ARCHITECTURES:
        raise UserError(
            f"An ONNX graph is written of {' and '.join(ARCHITECTURES)}, not of {config.architecture}: take "
            "--to=hf or --to=stablehlo."
        )
    if inputs not in INPUTS:
        raise UserError(f"--inputs={inputs} is not one of {', '.join(INPUTS)}.")
    if inputs != "ids" and config.has_trained_table:
        raise UserError(
            f"--inputs={inputs} is for hashed embeddings; embedding={config.embedding!r} is a table, which "
            "goes into the file: take --inputs=ids."
        )


def _words(graph: Graph, model: Model, params: Any, inputs: str) -> tuple[str, dict[str, Any]]:
    """Return the word embeddings [B, L, E], and the inputs that they come from."""
    config, path = model.config, "embeddings/word_embeddings"
    of_ids: dict[str, Any] = {"input_ids": (TensorProto.INT64, BATCH)}
    if config.has_trained_table:
        table = token_table(params)
        return graph.rows(path, table, _checked_ids(graph, config), KNOWN_IDS), of_ids
    width = config.embedding_width
    if inputs == "vectors":
        table = {"word_vectors": (TensorProto.FLOAT, ("num_vectors", width))}
        ids = _checked_ids(graph, config)
        return graph.op("Gather", "word_vectors", ids, axis=0, name=KNOWN_IDS), {**of_ids, **table}
    hashed = WordVectors(graph, config, model.vocabulary.tokens)
    if inputs == "ids":
        flat = graph.op("Reshape", _checked_ids(graph, config), graph.constant([-1], np.int64))
        vectors = hashed.of_ids(flat)
    else:
        of_ids = hashed.inputs(BATCH)
        vectors = hashed.of_inputs()
    vectors = _projected(graph, params, vectors)
    leading = graph.op("Shape", "attention_mask")
    shape = graph.op("Concat", leading, graph.constant([width], np.int64), axis=0)
    return graph.op("Reshape", vectors, shape), of_ids


def _checked_ids(graph: Graph, config: BertConfig) -> str:
    """Return ids of which negative ones fail too: a Gather counts them from the end."""
    is_negative = graph.op("Less", "input_ids", graph.constant(0, np.int64))
    return graph.op("Where", is_negative, graph.constant(config.vocab_size, np.int64), "input_ids")


def _projected(graph: Graph, params: Any, vectors: str) -> str:
    """Return vectors [M, E] of hashes [M, W]."""
    projection = hash_projection(params)
    if projection is None:
        return vectors
    return graph.op("MatMul", vectors, graph.weight("embeddings/hash_projection", projection))


class _Bert:
    """Write the parts of a BERT; names and order as in `model.encoder`."""

    def __init__(self, graph: Graph, config: BertConfig, params: Mapping[str, Any]) -> None:
        self._graph, self._config, self._params = graph, config, params

    def encode(self, words: str) -> str:
        """Return the last hidden state [B, L, D] of word embeddings [B, L, E]."""
        graph, config, params, path = self._graph, self._config, self._params["embeddings"], "embeddings"
        length = graph.op("Shape", "attention_mask", start=1, end=2)
        zero = graph.constant([0], np.int64)
        table = graph.weight(f"{path}/position", params["position_embeddings"]["embedding"])
        positions = graph.op("Slice", table, zero, length, zero)
        fits = f"at_most_{config.max_position_embeddings}_tokens_a_text"
        if config.type_vocab_size:
            types = params["token_type_embeddings"]["embedding"]
            types = graph.rows(f"{path}/token_type", types, "token_type_ids")
            hidden = graph.op("Add", words, graph.op("Add", types, positions, name=fits))
        else:
            hidden = graph.op("Add", words, positions, name=fits)
        hidden = self.layer_norm(f"{path}/LayerNorm", params["LayerNorm"], hidden)
        if config.embedding_width != config.hidden_size:
            hidden = graph.dense(f"{path}/projection", params["projection"], hidden)
        mask = self._added_mask()
        for layer in range(config.num_groups):
            for recursion in range(config.num_recursions):
                hidden = self._layer(f"layer_{layer}", recursion, hidden, mask)
        return hidden

    def layer_norm(self, path: str, params: Any, inputs: str) -> str:
        """Return the LayerNorm with the model's epsilon."""
        return self._graph.layer_norm(path, params, inputs, self._config.layer_norm_eps)

    def gelu(self, inputs: str) -> str:
        """Return the exact GELU."""
        graph = self._graph
        half, one, root = (graph.constant(value, np.float32) for value in (0.5, 1.0, 2.0**0.5))
        error = graph.op("Erf", graph.op("Div", inputs, root))
        return graph.op("Mul", graph.op("Mul", inputs, graph.op("Add", error, one)), half)

    def _added_mask(self) -> str:
        """Return what makes scores of padding vanish, float32 [B, 1, 1, L]."""
        graph = self._graph
        mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
        mask = graph.op("Unsqueeze", mask, graph.constant([1, 2], np.int64))
        padding = graph.op("Sub", graph.constant(1.0, np.float32), mask)
        return graph.op("Mul", padding, graph.constant(np.finfo(np.float32).min, np.float32))

    def _layer(self, name: str, recursion: int, hidden: str, mask: str) -> str:
        params, path = self._params["encoder"][name], name
        hidden = self._adapted(f"attention_adapter_{recursion}", params, path, hidden)
        mixed = self._attention(f"{path}/attention/self", params["attention"]["self"], hidden, mask)
        attended = self._closed(f"{path}/attention/output", params["attention"]["output"], mixed, hidden)
        attended = self._adapted(f"output_adapter_{recursion}", params, path, attended)
        widened = self._graph.dense(f"{path}/intermediate/dense", params["intermediate"]["dense"], attended)
        return self._closed(f"{path}/output", params["output"], self.gelu(widened), attended)

    def _attention(self, path: str, params: Any, hidden: str, mask: str) -> str:
        graph, config = self._graph, self._config
        head_width = config.hidden_size // config.num_attention_heads
        split = graph.constant([0, 0, config.num_attention_heads, head_width], np.int64)

        def heads(name: str, order: list[int]) -> str:
            projected = graph.dense(f"{path}/{name}", params[name], hidden)
            return graph.op("Transpose", graph.op("Reshape", projected, split), perm=order)

        query = graph.op("Mul", heads("query", [0, 2, 1, 3]), graph.constant(head_width**-0.5, np.float32))
        scores = graph.op("Add", graph.op("MatMul", query, heads("key", [0, 2, 3, 1])), mask)
        probs = graph.op("Softmax", scores, axis=-1)
        mixed = graph.op(
            "Transpose", graph.op("MatMul", probs, heads("value", [0, 2, 1, 3])), perm=[0, 2, 1, 3]
        )
        return graph.op("Reshape", mixed, graph.constant([0, 0, config.hidden_size], np.int64))

    def _closed(self, path: str, params: Any, inputs: str, residual: str) -> str:
        outputs = self._graph.dense(f"{path}/dense", params["dense"], inputs)
        return self.layer_norm(
            f"{path}/LayerNorm", params["LayerNorm"], self._graph.op("Add", outputs, residual)
        )

    def _adapted(self, name: str, params: Any, path: str, hidden: str) -> str:
        if self._config.adapter_size is None:
            return hidden
        path, params = f"{path}/{name}", params[name]
        narrow = self.gelu(self._graph.dense(f"{path}/down", params["down"], hidden))
        wide = self._graph.dense(f"{path}/up", params["up"], narrow)
        return self.layer_norm(f"{path}/LayerNorm", params["LayerNorm"], self._graph.op("Add", wide, hidden))


def _logits(graph: Graph, model: Model, params: Any, bert: _Bert, hidden: str) -> tuple[str, tuple[Any, ...]]:
    """Return the outputs of the head, with their shape."""
    config = model.config
    if "classifier" not in params:
        return _token_logits(graph, config, params, bert, hidden), (*BATCH, config.vocab_size)
    if model.task is not None and model.task.kind == TAG:
        return graph.dense("classifier", params["classifier"], hidden), (*BATCH, config.num_labels)
    row = graph.op("Gather", hidden, graph.constant(0, np.int64), axis=1)
    if config.pooling == "pooler":
        pooler = params["bert"]["pooler"]["dense"]
        activation = "Relu" if config.architecture == "distilbert" else "Tanh"
        row = graph.op(activation, graph.dense("pooler", pooler, row))
    return graph.dense("classifier", params["classifier"], row), (BATCH[0], config.num_labels)


def _sentences(graph: Graph, params: Any, hidden: str) -> str:
    """Return the projected mean of the real tokens' states, [B, S]."""
    mask = graph.op("Cast", "attention_mask", to=TensorProto.FLOAT)
    kept = graph.op("Unsqueeze", mask, graph.constant([2], np.int64))
    axis = graph.constant([1], np.int64)
    total = graph.op("ReduceSum", graph.op("Mul", hidden, kept), axis, keepdims=0)
    mean = graph.op("Div", total, graph.op("ReduceSum", kept, axis, keepdims=0))
    return graph.dense("projection", params["projection"], mean)


def _token_logits(graph: Graph, config: BertConfig, params: Any, bert: _Bert, hidden: str) -> str:
    path, head = "predictions", params["cls"]["predictions"]
    features = bert.gelu(graph.dense(f"{path}/transform/dense", head["transform"]["dense"], hidden))
    features = bert.layer_norm(f"{path}/transform/LayerNorm", head["transform"]["LayerNorm"], features)
    if config.ties_decoder:
        table = params["bert"]["embeddings"]["word_embeddings"]["embedding"]
        decoder = graph.weight("embeddings/word_embeddings", table)
    else:
        decoder = graph.weight(f"{path}/decoder", head["decoder"]["kernel"])
    product = graph.op("MatMul", features, graph.op("Transpose", decoder, perm=[1, 0]))
    return graph.op("Add", product, graph.weight(f"{path}/bias", head["bias"]))
