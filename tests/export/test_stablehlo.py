"""A model as StableHLO answers as it does here, of any shape, where there is jax and nothing of ours."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.errors import UserError
from eelbert_jax.export import stablehlo
from eelbert_jax.export.encoder import check_inputs
from eelbert_jax.export.page import web_model
from eelbert_jax.export.stablehlo import write_stablehlo_folder
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.subwords import load_tokenizer
from support import exports
from support.folders import roberta_vocabulary, xlnet_vocabulary
from support.models import VOCABULARY

for package in ("flatbuffers", "onnx"):
    pytest.importorskip(package, reason=f"{package} is not installed")

TEXTS = ["the runner opens a table.", "run", "", "a running file . " * 20]
ENCODED = encode_texts(TEXTS, None, VOCABULARY, 48)

ALONE = """
import json, sys
import numpy as np
import jax.export
folder = sys.argv[1]
read = lambda name: jax.export.deserialize(bytearray(open(f"{folder}/{name}.stablehlo", "rb").read())).call
tokens = open(f"{folder}/vocab.txt", encoding="utf-8").read().split("\\n")[:-1]
lengths = np.array([len(token) for token in tokens], np.int32)
characters = np.zeros((len(tokens), lengths.max()), np.uint32)
for row, token in zip(characters, tokens):
    row[: len(token)] = [ord(letter) for letter in token]
vectors = read("word_vectors")(characters, lengths)
ids = np.array(json.loads(sys.argv[2]), np.int32)
outputs = read("model")(ids, np.ones_like(ids), np.zeros_like(ids), vectors)
assert not {"flax", "eelbert_jax"} & sys.modules.keys()
print(json.dumps({name: value.tolist() for name, value in outputs.items()}))
"""


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("classify", {}),
        ("tag", {"embedding": "table"}),
        (None, {"sentence_size": 24, "hash_width": 64}),
        (None, {"embedding": "random_hash"}),
        ("classify", {"hash": HashSpec(bucket_size=10**9 + 7)}),
    ],
)
def test_every_head_and_embedding(kind, changes, tmp_path):
    model = exports.model(kind, **changes)
    notes = write_stablehlo_folder(tmp_path, model, ENCODED)
    assert "outputs within" in notes[-1]
    is_apart = model.config.embedding == "ngram_hash" and changes.keys() != {"hash"}
    assert (tmp_path / "word_vectors.stablehlo").exists() == is_apart == (len(notes) == 2)


FAMILY = {
    "roberta": (roberta_vocabulary(), {"max_position_embeddings": 42, "type_vocab_size": 1}),
    "xlnet": (xlnet_vocabulary(), {"type_vocab_size": 0, "max_position_embeddings": 40}),
}


@pytest.mark.parametrize("embedding", ["table", "random_hash"])
@pytest.mark.parametrize("architecture", FAMILY)
def test_its_relatives(architecture, embedding, tmp_path):
    vocabulary, changes = FAMILY[architecture]
    model = exports.model("classify", vocabulary, architecture=architecture, embedding=embedding, **changes)
    encoded = encode_texts(TEXTS, None, vocabulary, 40)
    assert max(map(len, encoded.ids)) == 40  # all positions
    assert "outputs within" in write_stablehlo_folder(tmp_path, model, encoded)[-1]
    assert load_tokenizer(tmp_path) == vocabulary
    program = stablehlo._read(tmp_path / "model.stablehlo")
    ids, mask = np.full((1, 41), vocabulary.unk_id, np.int32), np.ones((1, 41), np.int32)
    with pytest.raises(ValueError, match="refining shapes"):
        program(ids, mask, 0 * mask)
    with pytest.raises(UserError, match=f"not of {architecture}: take --to=hf or --to=stablehlo"):
        check_inputs(model.config, "ids")
    with pytest.raises(UserError, match=f"not {architecture}: take --to=hf or --to=stablehlo"):
        web_model(model)


def test_it_answers_without_this_package(tmp_path):
    model = exports.model("classify")
    write_stablehlo_folder(tmp_path, model, ENCODED)
    row = ENCODED.ids[0].tolist()
    words = [sys.executable, "-I", "-c", ALONE, str(tmp_path), json.dumps([row, row[::-1]])]
    run = subprocess.run(words, capture_output=True, text=True)
    assert not run.returncode, run.stderr
    found = json.loads(run.stdout)
    expected = model.logits(ENCODED)[0]
    np.testing.assert_allclose(found["logits"][0], expected, atol=1e-5)
    assert np.abs(np.array(found["logits"][1]) - expected).max() > 1e-3


def test_another_model_is_noticed(tmp_path, monkeypatch):
    model = exports.model("classify")
    other = dataclasses.replace(model, params=jax.tree.map(lambda leaf: leaf * 1.001, model.params))
    right = stablehlo._model
    monkeypatch.setattr(stablehlo, "_model", lambda _: right(other))
    with pytest.raises(
        UserError, match=r"model.stablehlo is wrong and was removed: its (logits|last_hidden_state) differ by"
    ):
        write_stablehlo_folder(tmp_path, model, ENCODED)


def test_another_hash_is_noticed(tmp_path, monkeypatch):
    model = exports.model("classify")
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, hash=HashSpec(base=33)))
    right = stablehlo._word_vectors
    monkeypatch.setattr(stablehlo, "_word_vectors", lambda _: right(other))
    with pytest.raises(UserError, match="its vectors are not those of the hash"):
        write_stablehlo_folder(tmp_path, model, ENCODED)
