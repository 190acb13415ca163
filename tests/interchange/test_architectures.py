"""DistilBERT, RoBERTa, XLNet: read from transformers' folders, equal layer by layer, dropped, fine-tuned."""

import dataclasses

import jax
import numpy as np
import pytest

from eelbert_jax.__main__ import main as door
from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import read_folder, write_folder
from eelbert_jax.interchange.hf import hf_config
from eelbert_jax.model import bert
from eelbert_jax.subwords import save_tokenizer
from support.folders import (
    HEADS,
    VOCABULARY,
    edit,
    micro,
    random_params,
    roberta_vocabulary,
    xlnet_vocabulary,
)

SIZES = {"num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 40}
VOCABULARIES = {"distilbert": VOCABULARY, "roberta": roberta_vocabulary(), "xlnet": xlnet_vocabulary()}
CHANGES = {
    "distilbert": {"type_vocab_size": 0},
    "roberta": {"type_vocab_size": 1, "max_position_embeddings": 42, "layer_norm_eps": 1e-5},
    "xlnet": {"type_vocab_size": 0, "max_position_embeddings": 512},
}
PREFIXES = {"distilbert": "DistilBert", "roberta": "Roberta", "xlnet": "XLNet"}
MODELS = [(name, head) for name in CHANGES for head in HEADS[name == "xlnet" :]]
"""An XLNet predicts tokens in another way, which is not read."""
TEXTS = ["The file opens.", "good tables."]


def config_of(architecture, **changes):
    size = VOCABULARIES[architecture].size
    changes = {"vocab_size": size, "architecture": architecture, **changes}
    return micro(**{**SIZES, **CHANGES[architecture], **changes})


@pytest.mark.parametrize(("architecture", "model_class"), MODELS)
def test_round_trip(architecture, model_class, tmp_path):
    config = config_of(architecture, num_labels=3)
    params = random_params(model_class(config))
    vocabulary = VOCABULARIES[architecture]
    write_folder(tmp_path, config, vocabulary, params, lowercase=vocabulary is VOCABULARY)
    found = read_folder(tmp_path)
    assert (found.config, found.vocabulary) == (config, vocabulary)
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def their_model(transformers, torch, folder, architecture, head):
    """Save a model of transformers with random weights, and return it."""
    values = hf_config(config_of(architecture, num_labels=3))
    prefix = PREFIXES[architecture]
    torch.manual_seed(0)
    made = getattr(transformers, f"{prefix}{head}")(
        getattr(transformers, f"{prefix}Config")(**values, attn_implementation="eager")
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.normal_(float(name.endswith(("norm.weight", "Norm.weight"))), 0.3)
    made.save_pretrained(folder)
    save_tokenizer(VOCABULARIES[architecture], folder)
    return made.eval()


def their_answers(torch, model, ids, mask):
    """Return logits and the hidden states before and after every layer."""
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.model_type == "xlnet":  # of the others none tells types apart
        inputs["token_type_ids"] = types_of(ids)
    inputs = {name: torch.from_numpy(values).long() for name, values in inputs.items()}
    with torch.no_grad():
        found = model(**inputs, output_hidden_states=True)
    return found.logits.numpy(), [state.numpy() for state in found.hidden_states]


def types_of(ids):
    """Return a second segment from the fourth token on, and a last one of a token."""
    types = np.zeros_like(ids)
    types[:, 3:] = 1
    types[:, -1] = 2
    return types


def our_answers(model_class, config, params, ids, mask, types=None):
    types = types_of(ids) if types is None else types
    logits, collected = model_class(config).apply(
        {"params": params}, ids, mask, types, mutable=["intermediates"]
    )
    return logits, bert.encoder_states(config, collected["intermediates"]).hidden_states


def a_batch(vocabulary):
    """Two rows, the second with five tokens of padding, which an XLNet has first."""
    random = np.random.default_rng(1)
    ids = random.integers(0, vocabulary.size, (2, 12)).astype(np.int32)
    ids[ids == vocabulary.pad_id] = vocabulary.unk_id
    ids[1, slice(5) if vocabulary.num_before == 0 else slice(7, None)] = vocabulary.pad_id
    return ids, ids != vocabulary.pad_id


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "model_class"), MODELS)
def test_every_layer_is_that_of_transformers(architecture, model_class, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    head = model_class.__name__.removeprefix("Bert")
    theirs = their_model(transformers, torch, tmp_path, architecture, head)
    found = read_folder(tmp_path)
    ids, mask = a_batch(found.vocabulary)
    expected, their_states = their_answers(torch, theirs, ids, mask)
    logits, states = our_answers(model_class, found.config, found.params, ids, mask)
    assert len(states) == len(their_states) == 4
    for ours, state in zip(states, their_states, strict=True):
        np.testing.assert_allclose(np.asarray(ours)[mask], state[mask], atol=1e-5)
    kept = mask if logits.ndim == 3 else slice(None)
    np.testing.assert_allclose(np.asarray(logits)[kept], expected[kept], atol=1e-4)
    if head == "ForSequenceClassification":
        # Read as a BERT, with tanh and positions from the first row on, it would answer something else, and
        # so would an XLNet that sees no segments.
        config, types = found.config, np.zeros_like(ids)
        if not config.is_relative:
            config = dataclasses.replace(config, architecture="bert")
        wrong, _ = our_answers(model_class, config, found.params, ids, mask, types)
        assert np.abs(np.asarray(wrong) - expected).max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CHANGES)
def test_layers_are_dropped_and_transformers_loads_the_rest(architecture, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = their_model(transformers, torch, tmp_path / "full", architecture, "ForSequenceClassification")
    words = [f"--from={tmp_path / 'full'}", f"--workdir={tmp_path / 'two'}", "--num_layers=1"]
    assert door(["drop_layers", "--strategy=even-alternate", *words]) == 0
    found = read_folder(tmp_path / "two")
    ids, mask = a_batch(found.vocabulary)
    smaller = type(theirs).from_pretrained(tmp_path / "two", attn_implementation="eager").eval()
    expected, their_states = their_answers(torch, smaller, ids, mask)
    logits, states = our_answers(bert.BertForSequenceClassification, found.config, found.params, ids, mask)
    assert len(states) == len(their_states) == 3
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    # The second layer that is left is the third that was, so that both begin alike and end apart.
    _, whole_states = their_answers(torch, theirs, ids, mask)
    np.testing.assert_allclose(their_states[1][mask], whole_states[1][mask], atol=1e-5)
    assert np.abs(their_states[2] - whole_states[2])[mask].max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["roberta", "xlnet"])
def test_texts_and_pairs_are_answered_as_transformers_does(architecture, tmp_path):
    """From text to logits, padded as each pads: rows, segments and positions are the published ones."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = their_model(transformers, torch, tmp_path, architecture, "ForSequenceClassification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = load(tmp_path)
    texts = ["The file opens.", "A table, and what stands in it", "good"]
    for second in (None, texts[::-1]):
        asked = {"return_tensors": "pt", "return_token_type_ids": architecture == "xlnet"}
        inputs = tokenizer(texts, second, padding=True, **asked)
        with torch.no_grad():
            expected = theirs(**inputs).logits.numpy()
        encoded = encode_texts(texts, second, model.vocabulary, 40)
        np.testing.assert_allclose(model.logits(encoded), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", CHANGES)
def test_it_is_fine_tuned_and_answers(architecture, tmp_path):
    config = config_of(architecture, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    params = {"bert": random_params(bert.BertForTokenClassification(config))["bert"]}
    write_folder(tmp_path / "model", config, VOCABULARIES[architecture], params, lowercase=True)
    rows = "".join(f"{text}\t{label}\n" for text, label in zip(TEXTS * 16, ["a", "b"] * 16, strict=True))
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n" + rows)
    words = [f"--config.custom.{split}={tmp_path / split}.tsv" for split in ("train", "dev")]
    words += [f"--config.pretrained={tmp_path / 'model'}", f"--workdir={tmp_path / 'run'}"]
    words += ["--config.num_epochs=4", "--config.batch_size=8", "--config.opt.learning_rate=1e-2"]
    words += ["--config.max_length=16", "--config.max_unknown_percent=100"]
    assert door(["finetune", "--config=configs/glue.py:tiny,task=custom", *words]) == 0
    model = load(tmp_path / "run")
    assert model.config.architecture == architecture
    assert [answer.label for answer in model.classify(TEXTS)] == ["a", "b"]
    edit(tmp_path / "model" / "config.json", model_type="bert")
    assert door(["finetune", "--config=configs/glue.py:tiny,task=custom", *words]) == 2
