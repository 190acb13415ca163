"""Recursion, factorised embeddings and adapters against the published formulas, once more in NumPy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.interchange.hf import hf_config
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig, size_of, sized
from eelbert_jax.model.encoder import stack_layers
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *(f"word{i}" for i in range(40))))
IDS = jnp.asarray(np.random.default_rng(0).integers(5, VOCABULARY.size, (2, 9)))
MASK = jnp.arange(9)[None, :] < jnp.asarray([[9], [6]])
TOLERANCE = 1e-5  # float32 against float64, relative to the largest entry


def student(**changes) -> BertConfig:
    """Return a MiniALBERT of three recursions, small and without dropout."""
    fields = {
        **dict(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_hidden_layers=3),
        **dict(embedding_size=16, adapter_size=4, vocab_size=VOCABULARY.size, embedding="table"),
        **dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    }
    return sized("minialbert", **{**fields, **changes})


def variables(config, model_class=bert.BertForMaskedLM):
    """Return parameters drawn wide, norms around 1 and biases away from 0, so that no term can hide."""
    shapes = jax.eval_shape(model_class(config).init, jax.random.key(0), IDS)["params"]
    draws = np.random.default_rng(1)

    def draw(path, leaf):
        width = 0.3 if path[-1].key in ("kernel", "embedding") else 0.2
        return draws.normal(path[-1].key == "scale", width, leaf.shape).astype(np.float32)

    return {
        "params": jax.tree.map_with_path(draw, shapes),
        "constants": bert.constants(config, VOCABULARY),
    }


def outputs(config, values, model_class=bert.BertForMaskedLM):
    """Return every hidden state, then the logits."""
    logits, collected = model_class(config).apply(values, IDS, MASK, mutable=["intermediates"])
    states = bert.encoder_states(config, collected["intermediates"])
    return [*states.hidden_states, *states.attention_probs, logits]


class Published:
    """MiniALBERT section 3 in float64; `adapter_first=False` puts the adapters behind the blocks."""

    def __init__(self, params, *, adapter_first=True):
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
        self.adapter_first = adapter_first

    @staticmethod
    def norm(x, p):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-12) * p["scale"] + p["bias"]

    @staticmethod
    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    @staticmethod
    def gelu(x):
        return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

    def adapter(self, x, p):
        return self.norm(self.dense(self.gelu(self.dense(x, p["down"])), p["up"]) + x, p["LayerNorm"])

    def attention(self, x, p, heads=2):
        def split(name):
            return self.dense(x, p["self"][name]).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 1, 3, 2) / math.sqrt(query.shape[-1])
        scores = np.where(np.asarray(MASK)[:, None, None, :], scores, -np.inf)
        probs = np.exp(scores - scores.max(-1, keepdims=True))
        probs /= probs.sum(-1, keepdims=True)
        mixed = (probs @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        return self.norm(self.dense(mixed, p["output"]["dense"]) + x, p["output"]["LayerNorm"]), probs

    def feed_forward(self, x, p):
        wide = self.gelu(self.dense(x, p["intermediate"]["dense"]))
        return self.norm(self.dense(wide, p["output"]["dense"]) + x, p["output"]["LayerNorm"])

    def __call__(self, num_recursions):
        embeddings = self.params["bert"]["embeddings"]
        x = embeddings["word_embeddings"]["embedding"][np.asarray(IDS)]
        x = x + embeddings["position_embeddings"]["embedding"][: x.shape[1]]
        x = self.norm(x + embeddings["token_type_embeddings"]["embedding"][0], embeddings["LayerNorm"])
        x = self.dense(x, embeddings["projection"])
        states, all_probs, layer = [x], [], self.params["bert"]["encoder"]["layer_0"]
        for r in range(num_recursions):
            before, after = layer[f"attention_adapter_{r}"], layer[f"output_adapter_{r}"]
            if self.adapter_first:
                x, probs = self.attention(self.adapter(x, before), layer["attention"])
                x = self.feed_forward(self.adapter(x, after), layer)
            else:
                x, probs = self.attention(x, layer["attention"])
                x = self.adapter(self.feed_forward(self.adapter(x, before), layer), after)
            states, all_probs = [*states, x], [*all_probs, probs]
        head = self.params["cls"]["predictions"]
        features = self.gelu(self.dense(x, head["transform"]["dense"]))
        features = self.norm(features, head["transform"]["LayerNorm"])
        return [*states, *all_probs, features @ head["decoder"]["kernel"].T + head["bias"]]


def errors(found, expected):
    return [
        float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        for ours, theirs in zip(found, expected, strict=True)
    ]


def test_every_recursion_equals_the_published_formulas():
    config = student()
    values = variables(config)
    found = outputs(config, values)
    assert max(errors(found, Published(values["params"])(3))) < TOLERANCE
    # Negative control: the same adapters behind the blocks they belong before.
    misplaced = Published(values["params"], adapter_first=False)(3)
    assert min(errors(found[1:4], misplaced[1:4])) > 1000 * TOLERANCE


def test_recursions_share_all_but_the_adapters():
    encoder = variables(student())["params"]["bert"]["encoder"]
    assert list(encoder) == ["layer_0"]
    adapters = {name for name in encoder["layer_0"] if "adapter" in name}
    assert adapters == {f"{place}_adapter_{r}" for place in ("attention", "output") for r in range(3)}
    plain = variables(student(adapter_size=None, num_hidden_groups=None, num_hidden_layers=1))
    shared = plain["params"]["bert"]["encoder"]["layer_0"]
    assert {name: shared[name].keys() for name in shared} == {
        name: encoder["layer_0"][name].keys() for name in shared
    }


@pytest.mark.parametrize("embedding", ["table", "ngram_hash", "random_hash"])
def test_a_shared_layer_is_a_stack_of_equal_layers(embedding):
    """Without adapters R recursions are R layers with the same parameters, whatever embeds the tokens."""
    shared = student(adapter_size=None, embedding=embedding, embedding_size=16)
    values = variables(shared)
    config = dataclasses.replace(shared, num_hidden_groups=None)

    def repeated(layers):
        encoder = {f"layer_{index}": layer for index, layer in enumerate(layers)}
        params = {**values["params"], "bert": {**values["params"]["bert"], "encoder": encoder}}
        return outputs(config, {**values, "params": params})

    layer = values["params"]["bert"]["encoder"]["layer_0"]
    expected = outputs(shared, values)
    for ours, theirs in zip(repeated([layer] * 3), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Negative control: one layer of another kind is seen.
    other = jax.tree.map(lambda leaf: leaf * 1.01, layer)
    assert errors(repeated([layer, layer, other]), expected)[3] > TOLERANCE


def test_scanned_groups_equal_unrolled_ones():
    config = student(num_hidden_layers=4, num_hidden_groups=2)
    values = variables(config)
    bert_params = values["params"]["bert"]
    stacked = {**bert_params, "encoder": stack_layers(bert_params["encoder"])}
    scanned = {**values, "params": {**values["params"], "bert": stacked}}
    found = outputs(dataclasses.replace(config, scan_layers=True), scanned)
    assert max(errors(found, outputs(config, values))) < TOLERANCE


def test_dropout_differs_by_recursion():
    """One layer drawn once would drop the same entries in every recursion."""
    config = student(num_hidden_layers=2, adapter_size=None, hidden_dropout_prob=0.5, initializer_range=0.0)
    values = variables(config)
    # The layer's blocks add nothing but dropped biases, so that the zeros of each recursion can be counted.
    layer = values["params"]["bert"]["encoder"]["layer_0"]
    layer["output"]["dense"]["kernel"] *= 0
    layer["output"]["LayerNorm"] = {"scale": np.ones(32, np.float32), "bias": np.zeros(32, np.float32)}
    _, collected = bert.BertForMaskedLM(config).apply(
        values, IDS, None, None, False, rngs={"dropout": jax.random.key(0)}, mutable=["intermediates"],
        capture_intermediates=lambda module, _: type(module).__name__ == "Dropout",
    )  # fmt: skip
    dropped = collected["intermediates"]["bert"]["encoder"]["layer_0"]["output"]["Dropout_0"]["__call__"]
    assert len(dropped) == 2
    assert ((np.asarray(dropped[0]) == 0) != (np.asarray(dropped[1]) == 0)).mean() > 0.3


def test_a_classifier_reads_the_state_of_cls_as_it_is():
    config = student(num_labels=3)
    values = variables(config, bert.BertForSequenceClassification)
    assert "pooler" not in values["params"]["bert"]
    found = outputs(config, values, bert.BertForSequenceClassification)
    classifier = values["params"]["classifier"]
    expected = np.asarray(found[3])[:, 0] @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(found[-1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(num_hidden_groups=2), "no multiple of num_hidden_groups=2"),
        (dict(adapter_size=0), "adapter_size must be at least 1"),
        (dict(tie_word_embeddings=True), "embedding_size=16 is no decoder.*tie_word_embeddings=False"),
        (dict(pooling="max"), "pooling='max' is not one of pooler, cls"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        student(**changes)


def test_no_published_bert_is_a_recursive_one():
    with pytest.raises(UserError, match="num_hidden_groups=1, adapter_size=4, pooling=cls"):
        hf_config(student())


def test_identities_hold_what_was_chosen():
    old = sized("tiny").to_identity()
    assert not {"embedding_size", "num_hidden_groups", "adapter_size", "pooling"} & old.keys()
    chosen = student().to_identity()
    assert (chosen["num_hidden_groups"], chosen["adapter_size"]) == (1, 4)
    assert BertConfig.from_identity(chosen) == student()
    assert size_of(sized("minialbert").to_identity()) == "minialbert"
    assert size_of({**sized("base").to_identity(), "num_hidden_groups": 1}) is None
