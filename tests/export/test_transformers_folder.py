"""The folders for transformers load there and answer as here, again after they were saved again."""

import dataclasses
import importlib.util

import jax
import numpy as np
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.export import transformers_folder
from eelbert_jax.export.transformers_folder import write_transformers_folder
from support import exports

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None,
    reason="transformers and torch are not installed",
)


@pytest.mark.slow
@needs_transformers
@pytest.mark.parametrize("kind", [None, "classify", "tag"])
@pytest.mark.parametrize("changes", [{}, {"embedding": "random_hash"}, {"hash_width": 64}])
def test_a_compact_folder_answers_as_here(kind, changes, tmp_path):
    notes = write_transformers_folder(tmp_path, exports.model(kind, **changes), compact=True)
    assert "asked in transformers" in notes[1]


@pytest.mark.slow
@needs_transformers
@pytest.mark.parametrize("changes", [{"hash_width": 64}, {"hash_width": 64, "sentence_size": 24}])
def test_a_wide_hash_is_a_table_of_the_stock_folder(changes, tmp_path):
    notes = write_transformers_folder(tmp_path, exports.model(**changes), compact=False)
    assert "asked in transformers" in notes[1]


@pytest.mark.slow
@needs_transformers
def test_another_model_is_noticed(tmp_path, monkeypatch):
    model = exports.model("classify")
    other = dataclasses.replace(model, params=jax.tree.map(lambda leaf: leaf * 1.01, model.params))
    right = transformers_folder.outputs
    monkeypatch.setattr(transformers_folder, "outputs", lambda _, *rows: right(other, *rows))
    with pytest.raises(UserError, match="answers otherwise in transformers"):
        write_transformers_folder(tmp_path, model, compact=True)


@pytest.mark.slow
@needs_transformers
def test_a_compact_folder_in_half_precision_and_saved_again(tmp_path):
    import torch
    import transformers

    (tmp_path / "first").mkdir()
    write_transformers_folder(tmp_path / "first", exports.model("classify"), compact=True)
    ids = torch.tensor([[2, 7, 9, 3]])

    def answers(folder, **how):
        loaded = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, trust_remote_code=True, **how
        )
        with torch.no_grad():
            return loaded, loaded.eval()(ids).logits.float().numpy()

    loaded, first = answers(tmp_path / "first")
    loaded.save_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(answers(tmp_path / "again")[1], first)
    half = answers(tmp_path / "first", dtype=torch.float16)[1]
    assert 0 < np.abs(half - first).max() < 2e-2 * np.abs(first).max()


def test_what_transformers_has_no_place_for(tmp_path):
    with pytest.raises(UserError, match=r"embedding='table' is a table, which nothing replaces"):
        write_transformers_folder(tmp_path, exports.model(embedding="table"), compact=True)
