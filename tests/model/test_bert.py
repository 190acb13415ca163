"""The encoder and its heads: names, invariants by value and by gradient, numerics, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from eelbert_jax.errors import UserError
from eelbert_jax.model.bert import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    constants,
    encoder_states,
)
from eelbert_jax.model.config import sized
from eelbert_jax.model.encoder import stack_layers, unstack_layers
from eelbert_jax.model.layers import gelu
from eelbert_jax.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{index}" for index in range(45)))
)
MODELS = (BertForMaskedLM, BertForSequenceClassification, BertForTokenClassification)
LENGTH = 12
# Float32 sums of a few hundred terms of order 1, taken in another order.
SAME = dict(rtol=1e-5, atol=2e-6)


def micro(**changes):
    return sized("micro", **{"vocab_size": VOCABULARY.size, "num_hidden_layers": 2, **changes})


def rows(seed=0, batch=2):
    return jnp.asarray(np.random.default_rng(seed).integers(5, VOCABULARY.size, (batch, LENGTH)), jnp.int32)


def mask(lengths=(LENGTH, 7)):
    return jnp.arange(LENGTH)[None, :] < jnp.asarray(lengths)[:, None]


def shapes(model_class, config):
    return jax.eval_shape(model_class(config).init, jax.random.key(0), rows())["params"]


@functools.cache
def variables(model_class, config):
    """Return parameters spread wider than at initialization, so that every one of them matters."""
    random = np.random.default_rng(0)
    params = jax.tree.map_with_path(
        lambda path, leaf: jnp.asarray(random.normal(path[-1].key == "scale", 0.2, leaf.shape), jnp.float32),
        shapes(model_class, config),
    )
    return {"params": params, "constants": constants(config, VOCABULARY)}


def apply(model_class, config, *args, **kwargs):
    return model_class(config).apply(variables(model_class, config), *args, **kwargs)


# --- names -------------------------------------------------------------------------------------------------


def encoder_paths(num_layers):
    norm = ("LayerNorm/scale", "LayerNorm/bias")
    affine = ("dense/kernel", "dense/bias")
    layer = [
        f"attention/self/{name}/{leaf}" for name in ("query", "key", "value") for leaf in ("kernel", "bias")
    ]
    layer += [f"attention/output/{leaf}" for leaf in affine + norm]
    layer += [f"intermediate/{leaf}" for leaf in affine] + [f"output/{leaf}" for leaf in affine + norm]
    embeddings = [*norm, "position_embeddings/embedding", "token_type_embeddings/embedding"]
    return {f"bert/embeddings/{leaf}" for leaf in embeddings} | {
        f"bert/encoder/layer_{index}/{leaf}" for index in range(num_layers) for leaf in layer
    }


MLM_PATHS = {
    f"cls/predictions/{leaf}"
    for leaf in (
        "bias",
        "transform/dense/kernel",
        "transform/dense/bias",
        "transform/LayerNorm/scale",
        "transform/LayerNorm/bias",
    )
}
TABLE, DECODER = "bert/embeddings/word_embeddings/embedding", "cls/predictions/decoder/kernel"
POOLER = {"bert/pooler/dense/kernel", "bert/pooler/dense/bias"}
CLASSIFIER = {"classifier/kernel", "classifier/bias"}


@pytest.mark.parametrize(
    ("model_class", "embedding", "expected"),
    [
        (BertForMaskedLM, "table", MLM_PATHS | {TABLE}),
        (BertForMaskedLM, "hash_initialized", MLM_PATHS | {TABLE}),
        (BertForMaskedLM, "ngram_hash", MLM_PATHS | {DECODER}),
        (BertForSequenceClassification, "ngram_hash", POOLER | CLASSIFIER),
        (BertForTokenClassification, "table", CLASSIFIER | {TABLE}),
    ],
)
def test_parameter_paths_are_the_published_names(model_class, embedding, expected):
    tree = shapes(model_class, micro(embedding=embedding))
    assert set(traverse_util.flatten_dict(tree, sep="/")) == encoder_paths(2) | expected


def test_kernels_start_truncated_and_biases_at_zero():
    config = micro(num_hidden_layers=1, embedding="table", initializer_range=0.05)
    params = jax.jit(BertForMaskedLM(config).init)(jax.random.key(0), rows())["params"]
    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        if path.endswith("bias"):
            assert not leaf.any(), path
        elif path.endswith("scale"):
            assert (leaf == 1).all(), path
        else:
            assert jnp.abs(leaf).max() <= 2 * 0.05, path
    # A normal cut at two standard deviations has 0.8796 of its width; 16,384 draws scatter by 0.6 %.
    positions = params["bert"]["embeddings"]["position_embeddings"]["embedding"]
    assert float(positions.std()) == pytest.approx(0.8796 * 0.05, rel=0.02)


# --- what depends on what ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", MODELS)
def test_padding_changes_nothing(model_class):
    config = micro()
    ids = rows()
    other = jnp.where(mask(), ids, rows(seed=1))
    real = mask() if model_class is not BertForSequenceClassification else jnp.ones((2,), bool)
    before, after = (np.asarray(apply(model_class, config, i, mask()))[real] for i in (ids, other))
    np.testing.assert_array_equal(before, after)
    # Negative control: without the mask the same change is seen.
    before, after = (np.asarray(apply(model_class, config, i))[real] for i in (ids, other))
    assert np.abs(before - after).max() > 1e-3


@pytest.mark.parametrize("model_class", MODELS)
def test_no_mask_is_a_full_mask(model_class):
    full = apply(model_class, micro(), rows(), mask((LENGTH, LENGTH)), jnp.zeros((2, LENGTH), jnp.int32))
    np.testing.assert_array_equal(apply(model_class, micro(), rows()), full)


def test_no_mask_costs_nothing():
    """Count selections in the traced program: a mask adds one a layer, and nothing else adds any."""

    def selections(*args):
        traced = jax.make_jaxpr(lambda v: BertForTokenClassification(config).apply(v, rows(), *args))
        return str(traced(variables(BertForTokenClassification, config))).count("name=_where")

    config = micro(embedding="table")
    assert selections(mask()) == selections() + config.num_hidden_layers


def test_gradient_reaches_every_real_token_and_no_padding():
    config = micro(embedding="table")
    params = variables(BertForMaskedLM, config)["params"]
    ids = jnp.arange(5, 5 + LENGTH)[None, :]  # every token once: a row of the table is a position

    @jax.jit
    @jax.grad
    def gradient_of_first_feature(params):
        features, _, _ = BertForMaskedLM(config).apply(
            {"params": params}, ids, jnp.zeros((1, 1), jnp.int32), mask((7,)), method="decoder_inputs"
        )
        return features[0, 0, 0]

    gradient = gradient_of_first_feature(params)["bert"]["embeddings"]["word_embeddings"]["embedding"]
    of_token = np.abs(np.asarray(gradient)).max(axis=1)[np.asarray(ids[0])]
    assert (of_token[:7] > 1e-6).all()
    assert (of_token[7:] == 0).all()


@pytest.mark.parametrize("model_class", MODELS)
def test_every_parameter_gets_a_gradient(model_class):
    config = micro(num_hidden_layers=1)
    model, values = model_class(config), variables(model_class, config)
    weights = jax.random.normal(jax.random.key(2), (2, LENGTH, VOCABULARY.size))

    @jax.jit
    @jax.grad
    def gradients(params):
        outputs = model.apply({**values, "params": params}, rows())
        outputs = outputs.reshape(2, -1, outputs.shape[-1])
        return jnp.sum(weights[:, : outputs.shape[1], : outputs.shape[2]] * outputs)

    for path, gradient in traverse_util.flatten_dict(gradients(values["params"]), sep="/").items():
        # A key's bias shifts all scores of a query alike, which the softmax takes out again.
        assert path.endswith("key/bias") or np.abs(gradient).max() > 1e-4, path


# --- equal ways to compute the same ------------------------------------------------------------------------


def test_decoder_inputs_give_the_logits_at_their_positions():
    positions = jnp.asarray([[1, 4, 9], [0, 2, 3]])
    for embedding in ("table", "ngram_hash"):
        config = micro(embedding=embedding)
        features, decoder, bias = apply(
            BertForMaskedLM, config, rows(), positions, mask(), method="decoder_inputs"
        )
        logits = apply(BertForMaskedLM, config, rows(), mask())
        expected = np.take_along_axis(np.asarray(logits), np.asarray(positions)[:, :, None], axis=1)
        np.testing.assert_allclose(features @ decoder.T + bias[None, None, :], expected, **SAME)


def test_scanned_layers_equal_unrolled_ones():
    config, scanned = micro(num_hidden_layers=3), micro(num_hidden_layers=3, scan_layers=True)
    values = variables(BertForMaskedLM, config)
    expected, states = apply(BertForMaskedLM, config, rows(), mask(), mutable=["intermediates"])

    def logits(encoder):
        params = {**values["params"], "bert": {**values["params"]["bert"], "encoder": encoder}}
        return BertForMaskedLM(scanned).apply(
            {**values, "params": params}, rows(), mask(), mutable=["intermediates"]
        )

    encoder = values["params"]["bert"]["encoder"]
    actual, scanned_states = logits(stack_layers(encoder))
    np.testing.assert_allclose(actual, expected, **SAME)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, **SAME),
        encoder_states(scanned, scanned_states["intermediates"]),
        encoder_states(config, states["intermediates"]),
    )
    # Negative control: the order of the layers matters.
    turned = stack_layers({f"layer_{2 - index}": encoder[f"layer_{index}"] for index in range(3)})
    assert np.abs(logits(turned)[0] - expected).max() > 1e-2


def test_scanned_initialization_has_the_stacked_shapes_and_differs_by_layer():
    config = micro(num_hidden_layers=3)
    scanned_config = micro(num_hidden_layers=3, scan_layers=True)
    unrolled = jax.eval_shape(stack_layers, shapes(BertForMaskedLM, config)["bert"]["encoder"])
    scanned = jax.jit(BertForMaskedLM(scanned_config).init)(jax.random.key(0), rows())["params"]["bert"][
        "encoder"
    ]
    assert jax.tree.map(jnp.shape, unrolled) == jax.tree.map(jnp.shape, scanned)
    kernels = scanned["layer"]["intermediate"]["dense"]["kernel"]
    assert jnp.abs(kernels[0] - kernels[1]).max() > 1e-3
    again = stack_layers(unstack_layers(scanned))
    jax.tree.map(np.testing.assert_array_equal, again, scanned)


def test_states_are_what_the_layers_computed():
    config = micro()
    labels, collected = apply(BertForTokenClassification, config, rows(), mask(), mutable=["intermediates"])
    states = encoder_states(config, collected["intermediates"])
    assert [state.shape for state in states.hidden_states] == [(2, LENGTH, 32)] * 3
    assert [probs.shape for probs in states.attention_probs] == [(2, 2, LENGTH, LENGTH)] * 2
    classifier = variables(BertForTokenClassification, config)["params"]["classifier"]
    expected = states.hidden_states[-1] @ classifier["kernel"] + classifier["bias"][None, None, :]
    np.testing.assert_allclose(labels, expected, **SAME)
    for probs in states.attention_probs:
        np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-6)
        assert (np.asarray(probs)[1, :, :, 7:] == 0).all()


def test_cached_and_on_the_fly_embeddings_give_the_same_logits():
    cached, on_the_fly = micro(), micro(embedding_mode="on_the_fly")
    params = variables(BertForMaskedLM, cached)["params"]
    logits = [
        BertForMaskedLM(c).apply({"params": params, "constants": constants(c, VOCABULARY)}, rows())
        for c in (cached, on_the_fly)
    ]
    np.testing.assert_array_equal(*logits)


# --- numerics ----------------------------------------------------------------------------------------------


def test_gelu_is_exact():
    x = jnp.linspace(-6, 6, 97)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), rtol=1e-6, atol=5e-7)
    # Negative control: the tanh approximation is told apart.
    assert jnp.abs(gelu(x) - jax.nn.gelu(x, approximate=True)).max() > 1e-4


@pytest.mark.parametrize("model_class", MODELS)
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_where_it_counts(model_class):
    config = micro(dtype="bfloat16")
    model = model_class(config)
    values = variables(model_class, micro())
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes(model_class, config))} == {jnp.dtype("float32")}
    logits, collected = model.apply(values, rows(), mask(), mutable=["intermediates"])
    states = encoder_states(config, collected["intermediates"])
    assert logits.dtype == jnp.float32
    assert {state.dtype for state in states.hidden_states} == {jnp.dtype("bfloat16")}
    assert {probs.dtype for probs in states.attention_probs} == {jnp.dtype("float32")}
    # bfloat16 has 8 bits: an error of 2^-9 an operation, some twenty of them one after the other.
    _, collected = apply(model_class, micro(), rows(), mask(), mutable=["intermediates"])
    exact = encoder_states(micro(), collected["intermediates"])
    error = jnp.linalg.norm(states.hidden_states[-1] - exact.hidden_states[-1])
    assert 1e-4 < error / jnp.linalg.norm(exact.hidden_states[-1]) < 0.02


# --- dropout -----------------------------------------------------------------------------------------------


def test_rate_0_inserts_nothing():
    config = micro(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)

    def program(deterministic):
        model = BertForMaskedLM(config)
        return str(
            jax.make_jaxpr(
                lambda v, k: model.apply(v, rows(), deterministic=deterministic, rngs={"dropout": k})
            )(variables(BertForMaskedLM, config), jax.random.key(0))
        )

    assert program(deterministic=False) == program(deterministic=True)


def test_dropout_is_a_function_of_its_key_and_differs_by_place():
    def run(key, **rates):
        config = micro(**rates)
        return np.asarray(
            BertForMaskedLM(config).apply(
                variables(BertForMaskedLM, micro()), rows(), deterministic=False, rngs={"dropout": key}
            )
        )

    one, two = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(run(one), run(one))
    assert (run(one) != run(two)).any()
    still = apply(BertForMaskedLM, micro(), rows())
    # Each of the two rates alone changes the result: neither is ignored.
    assert (run(one, hidden_dropout_prob=0.0) != still).any()
    assert (run(one, attention_probs_dropout_prob=0.0) != still).any()


# --- errors ------------------------------------------------------------------------------------------------


def test_rows_longer_than_the_position_table_are_refused():
    with pytest.raises(UserError, match="max_position_embeddings=8"):
        BertForMaskedLM(micro(max_position_embeddings=8)).init(jax.random.key(0), rows())


def test_missing_constants_are_named():
    params = variables(BertForMaskedLM, micro())["params"]
    with pytest.raises(UserError, match="constants"):
        BertForMaskedLM(micro()).apply({"params": params}, rows())


def test_mask_of_the_wrong_type_is_refused():
    with pytest.raises(AssertionError, match="float"):
        apply(BertForMaskedLM, micro(), rows(), mask().astype(jnp.float32))
