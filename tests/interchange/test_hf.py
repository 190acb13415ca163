"""Renaming to and from Hugging Face names: a round trip, the first checkpoints' names, and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.interchange.hf import from_hf, full_names, hf_config, to_hf
from eelbert_jax.model.bert import BertForMaskedLM, BertForSequenceClassification
from eelbert_jax.model.config import sized

QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def micro(**changes):
    return sized("micro", **{"vocab_size": 50, "num_hidden_layers": 2, "embedding": "table", **changes})


@functools.cache
def parameters(model_class, config):
    """Return the shapes of a model's parameters and random values for them."""
    random = np.random.default_rng(0)
    like = jax.eval_shape(model_class(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    return like, jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), like)


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("embedding", ["table", "ngram_hash"])
@pytest.mark.parametrize("model_class", [BertForMaskedLM, BertForSequenceClassification])
def test_round_trip(model_class, embedding, scan_layers):
    config = micro(embedding=embedding, scan_layers=scan_layers)
    like, params = parameters(model_class, config)
    state = to_hf(params, config)
    assert state[QUERY].shape == (32, 32)
    back = from_hf(state, config, like)
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_dense_kernels_are_transposed_and_decoders_are_not():
    config = micro(embedding="ngram_hash")
    _, params = parameters(BertForMaskedLM, config)
    state = to_hf(params, config)
    kernel = params["bert"]["encoder"]["layer_1"]["intermediate"]["dense"]["kernel"]
    np.testing.assert_array_equal(state["bert.encoder.layer.1.intermediate.dense.weight"], kernel.T)
    decoder = params["cls"]["predictions"]["decoder"]["kernel"]
    np.testing.assert_array_equal(state["cls.predictions.decoder.weight"], decoder)


def test_word_vectors_stand_in_for_a_hash_and_beside_no_table():
    vectors = np.ones((50, 32), np.float32)
    hashed, table = micro(embedding="ngram_hash"), micro()
    state = to_hf(parameters(BertForMaskedLM, hashed)[1], hashed, vectors)
    np.testing.assert_array_equal(state["bert.embeddings.word_embeddings.weight"], vectors)
    with pytest.raises(UserError, match="word_vectors"):
        to_hf(parameters(BertForMaskedLM, table)[1], table, vectors)


def test_names_of_the_first_checkpoints_and_tied_copies_are_understood():
    config = micro()
    like, params = parameters(BertForMaskedLM, config)
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in to_hf(params, config).items()
    }
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    state["cls.predictions.decoder.bias"] = state["cls.predictions.bias"]
    state["bert.embeddings.position_ids"] = np.arange(512)[None]
    jax.tree.map(np.testing.assert_array_equal, from_hf(full_names(state), config, like), params)
    state["cls.predictions.decoder.weight"] = state["cls.predictions.decoder.weight"] + 1
    with pytest.raises(UserError, match="ties them"):
        from_hf(full_names(state), config, like)


def test_every_difference_is_listed_at_once():
    config = micro()
    like, params = parameters(BertForMaskedLM, config)
    state = to_hf(params, config)
    state["bert.pooler.dense.bias"] = np.zeros(32, np.float32)
    state[QUERY] = state[QUERY][:16]
    del state["cls.predictions.bias"]
    with pytest.raises(UserError) as error:
        from_hf(state, config, like)
    message = str(error.value)
    assert "missing: cls.predictions.bias [50]" in message
    assert "left over: bert.pooler.dense.bias [32]" in message
    assert f"shape: {QUERY} is [16, 32], the model has [32, 32]" in message


def test_of_many_differences_the_first_ten_are_listed():
    config = micro()
    like, params = parameters(BertForMaskedLM, config)
    state = {name: value for name, value in to_hf(params, config).items() if ".layer.1." not in name}
    with pytest.raises(UserError) as error:
        from_hf(state, config, like)
    assert str(error.value).count("missing:") == 10
    assert str(error.value).endswith("\n  and 6 more")


def test_config_says_whether_the_decoder_is_tied():
    assert hf_config(micro())["tie_word_embeddings"] is True
    assert hf_config(micro(embedding="ngram_hash"))["tie_word_embeddings"] is False
    assert hf_config(micro())["num_hidden_layers"] == 2
