"""What an export is held against."""

import numpy as np
import pytest

from eelbert_jax.datasets.encoding import encode_texts, eval_batches
from eelbert_jax.export.expected import difference, outputs
from eelbert_jax.inference.load import load
from support.models import NLI_LABELS, save_finetuned


def test_logits_are_in_the_order_of_the_rows_though_batches_are_by_length(tmp_path):
    model = load(save_finetuned(tmp_path / "run", "mine", "classify", NLI_LABELS))
    texts = [word * (40 if i % 100 == 0 else 1) for i, word in enumerate(["run ", "table ", "files "] * 400)]
    encoded = encode_texts(tuple(texts), None, model.vocabulary, model.max_length, model.lowercase)
    found = difference(model, encoded, lambda *rows: outputs(model, *rows))
    assert (found.largest, found.changed, found.answers) == (0.0, 0, len(texts))
    in_batches = np.concatenate([batch.indices for batch in eval_batches(encoded, 32)])
    assert not np.array_equal(in_batches[: len(texts)], np.arange(len(texts))), "the lengths are of one batch"
    answers = [list(answer.probabilities.values()) for answer in model.classify(texts)]
    shares = np.exp(found.logits)
    assert shares / shares.sum(axis=-1, keepdims=True) == pytest.approx(np.array(answers), abs=1e-5)
