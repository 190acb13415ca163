"""The model card says what the run's own record says."""

import json

import pytest

from eelbert_jax.model.config import sized
from eelbert_jax.reporting.card import model_card


def test_a_distilled_model_names_its_teacher(tmp_path):
    vectors = {"teacher": {"name": "minilm"}, "num_sentences": 254303}
    (tmp_path / "config.json").write_text(json.dumps({"vectors": vectors}))
    (tmp_path / "metrics.jsonl").write_text("")
    card = model_card(tmp_path, 7, sized("uno"), None, [])
    assert "minilm's vectors of 254,303 sentences." in card
    assert "masked language model" not in card


@pytest.mark.parametrize("has_config", [True, False])
def test_an_imported_model_says_that_it_does_not_know(tmp_path, has_config):
    if has_config:
        (tmp_path / "config.json").write_text("{}")
    assert "What it was trained on is not recorded." in model_card(tmp_path, None, sized("uno"), None, [])
