"""A model as one file of int8 weights: what is read is what the rounded weights say; damage is refused."""

import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from eelbert_jax import cli
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.packed import is_packed, read_packed, write_packed
from eelbert_jax.jobs.export import export
from eelbert_jax.jobs.finetune import starting_model
from eelbert_jax.model import bert
from eelbert_jax.workdir import PACKED_NAME
from support.models import CONFIG, VOCABULARY, params_of, save_finetuned

TEXTS = ["the file opens .", "a runner", "running", ""]
ENCODER = dataclasses.replace(CONFIG, hash_width=96, sentence_size=24, max_position_embeddings=64)


def write(folder, config=ENCODER, **fields):
    folder.mkdir(exist_ok=True)
    params = params_of(bert.BertForSentenceEmbedding(config))
    write_packed(folder, config, VOCABULARY, params, lowercase=True, **fields)
    return params


@pytest.mark.parametrize("embedding", ["ngram_hash", "table"])
def test_each_weight_is_within_half_a_step_of_its_row(embedding, tmp_path):
    config = ENCODER if embedding == "ngram_hash" else dataclasses.replace(CONFIG, embedding="table")
    config = dataclasses.replace(config, sentence_size=24)
    params = write(tmp_path, config)
    found = read_packed(tmp_path)
    assert (found.config, found.vocabulary, found.lowercase, found.task) == (config, VOCABULARY, True, None)

    def compare(path, before, after):
        before = np.asarray(before)
        axis = -1 if "embedding" in str(path[-1]) else -2
        steps = np.abs(before).max(axis=axis, keepdims=True) / 127 if before.ndim == 2 else 0
        assert (np.abs(before - after) <= steps * 0.501).all(), path
        assert before.ndim < 2 or np.abs(before - after).max() > 0  # it was rounded

    jax.tree_util.tree_map_with_path(compare, params, found.params)


def test_a_matrix_takes_a_byte_an_entry(tmp_path):
    write(tmp_path)
    tensors = load_file(tmp_path / PACKED_NAME)
    kernel = "bert/encoder/layer_0/intermediate/dense/kernel"
    assert tensors[kernel].dtype == np.int8
    assert tensors[f"{kernel}:scales"].shape == (1, ENCODER.intermediate_size)
    assert not any("constants" in name or name.endswith("word_embeddings/table") for name in tensors)


def test_it_answers_and_is_a_start_like_any_other(tmp_path):
    write(tmp_path / "packed", trained_length=40)
    model = load(tmp_path / "packed")
    vectors = model.encode(TEXTS)
    assert vectors.shape == (4, 24)
    assert np.isfinite(vectors).all()
    assert (model.trained_length, model.max_length, model.vector_size) == (40, 64, 24)
    config = cli.load_config("configs/glue.py:micro,task=sst2")
    config.pretrained = str(tmp_path / "packed")
    start = starting_model(config)[2]
    np.testing.assert_array_equal(start.params["projection"]["kernel"], model.params["projection"]["kernel"])


def test_a_classifier_keeps_its_task_and_answers_nearly_alike(tmp_path):
    save_finetuned(tmp_path / "run", "sst2", "classify", ("negative", "positive"))
    export(tmp_path / "run", tmp_path / "export", ["int8"])
    before, after = load(tmp_path / "run"), load(tmp_path / "export" / "int8")
    assert isinstance(after.task, TaskRecord)
    assert after.task == before.task
    for a, b in zip(before.classify(TEXTS), after.classify(TEXTS), strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.05)


def test_another_vocabulary_and_a_cut_file_are_refused(tmp_path):
    write(tmp_path)
    vocabulary = (tmp_path / "vocab.txt").read_text()
    (tmp_path / "vocab.txt").write_text(vocabulary.replace("table", "tables"))
    with pytest.raises(UserError, match="its vocabulary are other than those"):
        load(tmp_path)
    (tmp_path / "vocab.txt").write_text(vocabulary)
    data = (tmp_path / PACKED_NAME).read_bytes()
    (tmp_path / PACKED_NAME).write_bytes(data[:-100])
    assert is_packed(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path)


def test_a_file_of_another_hash_is_refused(tmp_path):
    write(tmp_path)
    file = tmp_path / PACKED_NAME
    fingerprint, data = ENCODER.hash.fingerprint.encode(), file.read_bytes()
    assert fingerprint in data
    file.write_bytes(data.replace(fingerprint, b"0" * len(fingerprint)))
    with pytest.raises(UserError, match="its hash are other than those"):
        load(tmp_path)
