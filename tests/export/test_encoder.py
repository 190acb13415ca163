"""A model as an ONNX graph answers as it does in JAX, whatever it reads and however its weights are kept."""

import dataclasses

import jax
import numpy as np
import pytest

from eelbert_jax.compress.quantize import TOLERANCES, dequantize, quantize
from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.errors import UserError
from eelbert_jax.model.encoder import stack_layers
from support import exports
from support.models import VOCABULARY

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from eelbert_jax.export.check import compare, session
from eelbert_jax.export.encoder import model_graph
from eelbert_jax.export.expected import vectors_of

TEXTS = ["the runner opens a table.", "run", "", "a running file . " * 20]


def difference(model, inputs="ids", weights="float32", of=None):
    graph = session(model_graph(of or model, inputs, weights).SerializeToString())
    second = TEXTS[::-1] if model.task is not None and model.task.reads_pairs else None
    encoded = encode_texts(TEXTS, second, VOCABULARY, 48)
    return compare(model, encoded, graph, inputs)


MINIALBERT = dict(
    embedding="table",
    num_hidden_layers=2,
    num_hidden_groups=1,
    embedding_size=16,
    adapter_size=8,
    tie_word_embeddings=False,
    pooling="cls",
)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (None, {}),
        (None, {"embedding": "table"}),
        (None, {"sentence_size": 24}),
        ("classify", {}),
        ("classify", {"pairs": True, "embedding": "random_hash"}),
        ("regress", {"embedding": "hash_initialized"}),
        ("tag", {}),
        ("classify", {"architecture": "distilbert", "embedding": "table", "type_vocab_size": 0}),
        ("classify", {"hash_width": 64}),
        ("classify", MINIALBERT),
    ],
)
def test_every_head_answers_as_in_jax(kind, changes):
    model = exports.model(kind, **changes)
    found = difference(model)
    assert found.largest <= TOLERANCES["float32"]
    assert found.changed == 0
    assert bool(found.answers) == (kind != "regress" and "sentence_size" not in changes)


@pytest.mark.parametrize("inputs", ["ids", "signatures", "vectors"])
@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_inputs_and_weights(inputs, weights):
    found = difference(exports.model("tag"), inputs, weights)
    assert found.largest <= TOLERANCES[weights]
    if weights != "float32":  # the weights really are others
        assert found.largest > TOLERANCES["float32"]


def test_int8_is_what_the_quantized_parameters_say():
    model = exports.model("classify", embedding="table")
    kept = dataclasses.replace(model, params=jax.device_put(dequantize(quantize(model.params))))
    assert difference(kept, weights="int8", of=model).largest <= TOLERANCES["float32"]
    assert difference(model, weights="int8").largest > TOLERANCES["float32"]


def test_stacked_layers():
    model = exports.model("classify", num_hidden_layers=2)
    encoder = jax.device_get(model.params["bert"]["encoder"])
    params = {**model.params, "bert": {**model.params["bert"], "encoder": stack_layers(encoder)}}
    stacked = dataclasses.replace(
        model, config=dataclasses.replace(model.config, scan_layers=True), params=params
    )
    assert difference(model, of=stacked).largest <= TOLERANCES["float32"]


def test_another_model_is_noticed():
    model = exports.model("classify")
    other = jax.tree.map(lambda leaf: leaf * 1.001, model.params)
    assert difference(model, of=dataclasses.replace(model, params=other)).largest > TOLERANCES["float32"]


def test_a_table_has_no_vectors_to_read():
    with pytest.raises(UserError, match="--inputs=vectors is for hashed embeddings"):
        model_graph(exports.model(embedding="table"), "vectors", "float32")
    with pytest.raises(UserError, match="--inputs=words is not one of ids, signatures, vectors"):
        model_graph(exports.model(), "words", "float32")


@pytest.mark.parametrize(
    ("inputs", "changes"),
    [("ids", {}), ("ids", {"embedding": "table"}), ("ids", {"embedding": "random_hash"}), ("vectors", {})],
)
def test_what_no_text_gives_fails_by_name(inputs, changes):
    model = exports.model("classify", **changes)
    graph = session(model_graph(model, inputs, "float32").SerializeToString())
    vectors = {"word_vectors": vectors_of(model)} if inputs == "vectors" else {}

    def ask(ids):
        masks = {"attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return graph.run(["logits"], {"input_ids": ids, **masks, **vectors})[0]

    assert ask(np.zeros((1, 512), np.int64)).shape == (1, 3)
    for wrong in (-1, VOCABULARY.size, -VOCABULARY.size):
        with pytest.raises(Exception, match=r"input_ids_are_of_the_vocabulary.*out of (data )?bounds"):
            ask(np.array([[2, wrong, 3]]))
    with pytest.raises(Exception, match="at_most_512_tokens_a_text"):
        ask(np.zeros((1, 513), np.int64))


def test_a_graph_that_gives_no_numbers_is_noticed():
    model = exports.model("classify")
    other = jax.tree.map(lambda leaf: leaf * np.nan, model.params)
    assert np.isnan(difference(model, of=dataclasses.replace(model, params=other)).largest)


def test_a_graph_of_a_later_opset_is_a_users_error():
    graph = model_graph(exports.model("classify"), "ids", "float32")
    graph.opset_import[0].version = 99
    with pytest.raises(UserError, match=r"(?s)is not read by onnxruntime .*take onnxruntime 1.18 or newer"):
        session(graph.SerializeToString())


def test_a_cut_graph_is_a_users_error(tmp_path):
    whole = model_graph(exports.model("classify"), "ids", "float32").SerializeToString()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model.onnx is not read by onnxruntime .* export it again"):
        session(tmp_path / "model.onnx")
