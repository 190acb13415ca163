"""Same weights, same numbers: our models against transformers' torch BERT, layer by layer.

The published implementation is the definition of BERT; whatever we compute faster must still be it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.interchange.hf import hf_config, to_hf
from eelbert_jax.model.bert import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    encoder_states,
)
from eelbert_jax.model.config import sized

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.slow

PAIRS = {
    BertForMaskedLM: "BertForMaskedLM",
    BertForSequenceClassification: "BertForSequenceClassification",
    BertForTokenClassification: "BertForTokenClassification",
}
LENGTHS = (48, 17, 1)
# Float32 on both sides, sums of up to 3072 terms in different orders: 1e-5 of the tensor's own size.
TOLERANCE = 1e-5


def batch(config, seed=0):
    """Return input_ids, attention_mask and token_type_ids as numpy, rows of different lengths."""
    random = np.random.default_rng(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    attention_mask = np.arange(shape[1])[None, :] < np.asarray(LENGTHS)[:, None]
    input_ids = np.where(attention_mask, random.integers(1, config.vocab_size, shape), 0)
    return input_ids, attention_mask, random.integers(0, 2, shape) * attention_mask


def ours_and_theirs(model_class, config, seed=0):
    """Return our variables, and the torch model that holds the same weights.

    Weights are drawn wide, norms around 1 and biases away from 0, so that no term of the sum can hide. A
    hashed embedding reaches torch as its vectors.
    """
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(model_class(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))[
        "params"
    ]

    def draw(path, leaf):
        width = 0.05 if path[-1].key in ("kernel", "embedding") else 0.2
        return random.normal(path[-1].key == "scale", width, leaf.shape).astype(np.float32)

    params = jax.tree.map_with_path(draw, shapes)
    shape = (config.vocab_size, config.hidden_size)
    vectors = None if config.has_trained_table else random.uniform(-1, 1, shape).astype(np.float32)
    variables = {"params": params}
    if vectors is not None:
        variables["constants"] = {"bert": {"embeddings": {"word_embeddings": {"table": vectors}}}}
    torch_config = transformers.BertConfig(**hf_config(config), attn_implementation="eager")
    torch_model = getattr(transformers, PAIRS[model_class])(torch_config).eval()
    state = {name: torch.from_numpy(array.copy()) for name, array in to_hf(params, config, vectors).items()}
    result = torch_model.load_state_dict(state, strict=False)
    assert not result.unexpected_keys
    # Tied tensors have one name in our state dict; torch fills the other by itself.
    assert set(result.missing_keys) <= {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    torch_model.tie_weights()
    return variables, torch_model


def ours(model_class, config, variables, inputs):
    """Return the embeddings' output, every layer's, the attention probabilities and the logits."""
    model = model_class(config)
    logits, collected = jax.jit(lambda v, *a: model.apply(v, *a, mutable=["intermediates"]))(
        variables, *inputs
    )
    states = encoder_states(config, collected["intermediates"])
    return [*states.hidden_states, *states.attention_probs, logits]


def theirs(torch_model, inputs):
    names = ("input_ids", "attention_mask", "token_type_ids")
    tensors = {
        name: torch.from_numpy(array.astype(np.int64)) for name, array in zip(names, inputs, strict=True)
    }
    with torch.no_grad():
        outputs = torch_model(**tensors, output_hidden_states=True, output_attentions=True)
    return [tensor.numpy() for tensor in (*outputs.hidden_states, *outputs.attentions, outputs.logits)]


def error(actual, expected):
    """Return the largest difference relative to the largest entry, of one tensor."""
    assert actual.shape == expected.shape
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


CASES = [
    (size, embedding, model_class)
    for size in ("micro", "uno", "tiny", "mini")
    for embedding in ("table", "ngram_hash")
    for model_class in PAIRS
] + [("base", "ngram_hash", BertForSequenceClassification)]


@pytest.mark.parametrize(("size", "embedding", "model_class"), CASES)
def test_every_layer_equals_torch(size, embedding, model_class):
    config = sized(size, embedding=embedding, vocab_size=1000, num_labels=3)
    variables, torch_model = ours_and_theirs(model_class, config)
    inputs = batch(config)
    errors = list(map(error, ours(model_class, config, variables, inputs), theirs(torch_model, inputs)))
    assert len(errors) == 2 * config.num_hidden_layers + 2
    assert max(errors) < TOLERANCE, errors


@pytest.mark.parametrize(
    "changes", [dict(layer_norm_eps=1e-3), dict(num_attention_heads=4)], ids=["layer norm", "heads"]
)
def test_a_small_difference_is_seen(changes):
    """Negative control: a model that differs in one detail fails by far."""
    config = sized("tiny", embedding="table", vocab_size=1000)
    variables, torch_model = ours_and_theirs(BertForMaskedLM, config)
    inputs = batch(config)
    other = sized("tiny", embedding="table", vocab_size=1000, **changes)
    *_, logits = ours(BertForMaskedLM, other, variables, inputs)
    *_, expected = theirs(torch_model, inputs)
    assert error(logits, expected) > 10 * TOLERANCE


def test_an_ignored_mask_is_seen():
    """Negative control: without the mask the padded rows differ, the full one does not."""
    config = sized("tiny", embedding="table", vocab_size=1000)
    variables, torch_model = ours_and_theirs(BertForMaskedLM, config)
    input_ids, attention_mask, token_type_ids = batch(config)
    *_, logits = ours(BertForMaskedLM, config, variables, (input_ids, None, token_type_ids))
    *_, expected = theirs(torch_model, (input_ids, attention_mask, token_type_ids))
    assert error(logits[0], expected[0]) < TOLERANCE
    assert error(logits[1], expected[1]) > 10 * TOLERANCE


@pytest.mark.parametrize("embedding", ["table", "ngram_hash"])
def test_gradients_equal_torch(embedding):
    """The MLM loss's gradient of every parameter, through a tied and a decoupled decoder."""
    config = sized(
        "tiny",
        embedding=embedding,
        vocab_size=1000,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    variables, torch_model = ours_and_theirs(BertForMaskedLM, config)
    input_ids, attention_mask, token_type_ids = batch(config)
    labels = np.random.default_rng(1).integers(0, config.vocab_size, input_ids.shape)

    @jax.jit
    @jax.grad
    def gradients(params):
        logits = BertForMaskedLM(config).apply(
            {**variables, "params": params}, input_ids, attention_mask, token_type_ids
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, :, None], axis=-1)[:, :, 0]
        return -jnp.sum(jnp.where(attention_mask, chosen, 0.0)) / attention_mask.sum()

    torch_model(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(attention_mask.astype(np.int64)),
        token_type_ids=torch.from_numpy(token_type_ids),
        labels=torch.from_numpy(np.where(attention_mask, labels, -100)),
    ).loss.backward()
    # Torch trains a table where ours is a hash, and holds a bias that it reads under its other name only.
    constant = (
        () if config.has_trained_table else ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
    )
    expected = {name: p.grad.numpy() for name, p in torch_model.named_parameters() if name not in constant}
    actual = to_hf(gradients(variables["params"]), config)
    assert expected.keys() == actual.keys() - set(constant)
    errors = {
        # The softmax takes a key's bias out again: its gradient is rounding error on both sides.
        name: error(actual[name], expected[name])
        for name in expected
        if not name.endswith("key.bias")
    }
    # A gradient passes every layer twice.
    assert max(errors.values()) < 2 * TOLERANCE, max(errors, key=errors.get)
