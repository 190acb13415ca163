"""A model fine-tuned here, copied into torch: transformers reads the same texts and answers them alike."""

import jax
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.metrics import scores
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.inference.labels import probabilities
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.jobs.finetune import finetune

TASK, ROWS = "mrpc", 32
TOLERANCE = 1e-4
"""Of logits: float32 rounding of two matrix libraries through two layers is near 1e-6."""


def logits_of(model, tokenizer, examples, max_length) -> np.ndarray:
    """Return transformers' logits for all examples, from its own tokenizer on."""
    import torch

    rows = []
    for start in range(0, len(examples), ROWS):
        texts = [list(side[start : start + ROWS]) for side in (examples.first, examples.second)]
        inputs = tokenizer(*texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            rows.append(model(**inputs).logits.numpy())
    return np.concatenate(rows)


@pytest.mark.slow
@pytest.mark.parametrize("embedding", ["table", "ngram_hash"])
def test_transformers_scores_a_model_of_ours_the_same(
    embedding, data_dir, vocabulary_file, tmp_path, monkeypatch
):
    pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setenv("EELBERT_DATA", str(data_dir))
    config = cli.load_config(f"configs/glue.py:tiny,task={TASK},embedding={embedding}")
    config.vocabulary = str(vocabulary_file)
    config.num_epochs = 3  # after one, every pair still gets about the same answer
    config.opt.learning_rate = 1e-3
    result = finetune(config, tmp_path / "run")
    ours = load(tmp_path / "run")
    write_folder(
        tmp_path / "folder",
        ours.config,
        ours.vocabulary,
        jax.tree.map(np.asarray, ours.params),
        lowercase=ours.lowercase,
        task=ours.task,
    )
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "folder").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    task = find_task(TASK)
    examples = load_examples(task, "dev", glue_dir=str(data_dir / "glue"))
    answers = ours.classify(examples.first, examples.second)
    actual = np.array([list(answer.probabilities.values()) for answer in answers])
    expected = probabilities(logits_of(theirs, tokenizer, examples, ours.max_length))
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    assert np.std(actual, axis=0).min() > 100 * TOLERANCE  # answers alike for all texts would agree anyhow
    np.testing.assert_array_equal(np.argmax(actual, axis=-1), np.argmax(expected, axis=-1))
    assert scores(task.metrics, np.argmax(expected, axis=-1), examples.labels) == result.metrics

    def blind(token_type_ids, **inputs):
        return theirs(token_type_ids=0 * token_type_ids, **inputs)

    # The tolerance notices a detail: where the second text begins.
    other = probabilities(logits_of(blind, tokenizer, examples, ours.max_length))
    assert np.abs(actual - other).max() > TOLERANCE
