"""Which layers the strategies drop, and that what is left is the same model without them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.compress.drop_layers import (
    cls_similarities,
    kept_layers,
    layers_to_drop,
    least_contributing,
    without_layers,
)
from eelbert_jax.datasets.encoding import encode_texts, gather
from eelbert_jax.errors import UserError
from eelbert_jax.inference.predict import Model
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel
from eelbert_jax.model.config import sized
from eelbert_jax.model.encoder import EncoderLayer, stack_layers
from support.folders import xlnet_vocabulary
from support.models import CONFIG, VOCABULARY, params_of

PAPER = {
    "top": ([11, 12], [9, 10, 11, 12], [7, 8, 9, 10, 11, 12]),
    "even-alternate": ([10, 12], [6, 8, 10, 12], [2, 4, 6, 8, 10, 12]),
    "odd-alternate": ([9, 11], [5, 7, 9, 11], [1, 3, 5, 7, 9, 11]),
    "symmetric": ([6, 7], [5, 6, 7, 8], [4, 5, 6, 7, 8, 9]),
    "bottom": ([1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6]),
}
"""For L = 12 and K = 2, 4, 6. Source: Sajjad et al. 2020, figure 1."""
FOUR_LAYERS = dataclasses.replace(CONFIG, num_hidden_layers=4)


@functools.cache
def four_layers():
    return params_of(bert.BertForSequenceClassification(FOUR_LAYERS))


@functools.partial(jax.jit, static_argnums=0)
def states(config, params, ids):
    """Return the embeddings' output and every layer's."""
    constants = bert.constants(CONFIG, VOCABULARY)["bert"]
    variables = {"params": params["bert"], "constants": constants}
    _, collected = BertModel(config, with_pooler=False).apply(
        variables, ids, None, None, deterministic=True, mutable=["intermediates"]
    )
    return bert.encoder_states(config, {"bert": collected["intermediates"]}).hidden_states


@pytest.mark.parametrize("strategy", PAPER)
def test_the_paper_table(strategy):
    assert [list(layers_to_drop(strategy, 12, k)) for k in (2, 4, 6)] == list(PAPER[strategy])


@pytest.mark.parametrize(
    ("strategy", "num_layers", "num_dropped", "message"),
    [
        ("top", 12, 12, "12 layers cannot be dropped from 12: drop 1 to 11"),
        ("bottom", 6, 7, "drop 1 to 5"),
        ("top", 6, 0, "how many go, not how many stay"),
        ("symmetric", 12, 3, "12 - 3 = 9 is odd: drop one layer more, or one less"),
        ("even-alternate", 6, 4, "of 6 at most 3; got --num_layers=4"),
    ],
)
def test_what_cannot_be_dropped(strategy, num_layers, num_dropped, message):
    with pytest.raises(UserError, match=message):
        layers_to_drop(strategy, num_layers, num_dropped)


def test_contribution_drops_what_changes_cls_least():
    assert least_contributing([0.9, 0.96, 0.93, 0.97], 0.95) == (2, 4)
    with pytest.raises(UserError, match=r"--tau=0.99 drops 0 of 2 layers.* 1: 0.900, 2: 0.950"):
        least_contributing([0.9, 0.95], 0.99)
    with pytest.raises(UserError, match=r"drops 2 of 2"):
        least_contributing([0.9, 0.95], 0.5)


@pytest.mark.parametrize(("num_dropped", "millions"), [(0, 109.48), (2, 95.31), (4, 81.13), (6, 66.96)])
def test_parameters_of_bert_base(num_dropped, millions):
    """With pooler, without head, as the paper's sizes 110M, 94M, 80M and 66M."""
    config = sized("base", embedding="table")
    dropped = layers_to_drop("top", 12, num_dropped) if num_dropped else ()
    config, _ = without_layers(config, {"bert": {"encoder": {f"layer_{i}": {} for i in range(12)}}}, dropped)
    model = BertModel(config, with_pooler=True)
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = jax.eval_shape(
        lambda key, ids: model.init(key, ids, None, None, deterministic=True), jax.random.key(0), ids
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize("scan_layers", [False, True])
def test_the_smaller_model_skips_the_dropped_layers(scan_layers):
    """Run by hand through the layers that stay: the same hidden states, and others with another choice."""
    params = four_layers()
    stored, config = params, dataclasses.replace(FOUR_LAYERS, scan_layers=scan_layers)
    if scan_layers:
        stored = {**params, "bert": {**params["bert"], "encoder": stack_layers(params["bert"]["encoder"])}}
    ids = np.array([[2, 5, 6, 7, 3]], np.int32)
    hidden = states(FOUR_LAYERS, params, ids)[0]
    for index in (0, 3):  # 2 and 3, counted from 1, are gone
        layer = {"params": params["bert"]["encoder"][f"layer_{index}"]}
        hidden = jax.jit(EncoderLayer(FOUR_LAYERS).apply, static_argnums=3)(layer, hidden, None, True)
    smaller, left = without_layers(config, stored, (2, 3))
    assert (smaller.num_hidden_layers, sorted(left["bert"]["encoder"])) == (2, ["layer_0", "layer_1"])
    np.testing.assert_allclose(states(smaller, left, ids)[-1], hidden, atol=1e-6)
    other = without_layers(config, stored, (3, 4))
    assert np.abs(states(*other, ids)[-1] - hidden).max() > 1e-2


def test_shared_layers_are_not_dropped():
    shared = dataclasses.replace(FOUR_LAYERS, num_hidden_groups=2)
    with pytest.raises(UserError, match="applies 2 shared layers 2 times each"):
        without_layers(shared, four_layers(), (2,))


def test_similarities_are_those_of_each_text_alone():
    """Batches, padding and the rows that fill up change nothing; a layer that does nothing has 1."""
    params = four_layers()
    texts = ["the running table", "a", "the runner runs ."] * 15
    model = Model("-", FOUR_LAYERS, VOCABULARY, params, bert.constants(CONFIG, VOCABULARY), True, 1, None)
    encoded = encode_texts(texts, None, VOCABULARY, 16)
    found = cls_similarities(model, encoded)
    assert found.shape == (4,)

    by_hand = []
    for ids in encoded.ids[:3]:
        cls = np.array([state[0, 0] for state in states(FOUR_LAYERS, params, ids[None])], np.float64)
        norms = np.linalg.norm(cls, axis=1)
        by_hand.append((cls[1:] * cls[:-1]).sum(1) / (norms[1:] * norms[:-1]))
    np.testing.assert_allclose(found, np.mean(by_hand, axis=0), atol=1e-5)
    assert not np.allclose(found, by_hand[0], atol=1e-3)


def test_an_xlnet_is_read_at_its_last_token():
    """That of each text alone, without padding behind it."""
    vocabulary = xlnet_vocabulary()
    fields = dict(architecture="xlnet", type_vocab_size=0, vocab_size=vocabulary.size, embedding="table")
    config = dataclasses.replace(CONFIG, num_hidden_layers=2, **fields)
    params = params_of(bert.BertForSequenceClassification(config))
    model = Model("-", config, vocabulary, params, {}, False, None, None)
    encoded = encode_texts(["the running table", "a", "the runner runs ."], None, vocabulary, 32)
    by_hand = []
    for i, ids in enumerate(encoded.ids):
        collected = jax.jit(BertModel(config, False).apply, static_argnums=4, static_argnames="mutable")(
            {"params": params["bert"]}, *gather(encoded, [i], len(ids)), True, mutable=("intermediates",)
        )[1]
        found = bert.encoder_states(config, {"bert": collected["intermediates"]}).hidden_states
        last = np.array([state[0, -1] for state in found], np.float64)
        norms = np.linalg.norm(last, axis=1)
        by_hand.append((last[1:] * last[:-1]).sum(1) / (norms[1:] * norms[:-1]))
    np.testing.assert_allclose(cls_similarities(model, encoded), np.mean(by_hand, axis=0), atol=1e-5)


def test_kept_layers_are_the_others():
    assert kept_layers(6, (1, 5)) == [2, 3, 4, 6]
