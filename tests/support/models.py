"""Small models of random parameters, as runs leave them, for the tests that question them."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.inference.predict import model_class
from eelbert_jax.model import bert
from eelbert_jax.model.config import identity, sized
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.step import TrainState
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

WORDS = ("the", "a", "running", "runner", "run", "table", "file", "opens", "##ing", "##s", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
CONFIG = sized("micro", vocab_size=VOCABULARY.size, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
NLI_LABELS = ("entailment", "neutral", "contradiction")


def params_of(model, seed=0):
    return wider(jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 1), jnp.int32))["params"])


def wider(params):
    """Return first parameters with larger weights: as they are, a model answers everything alike."""
    return jax.tree.map(lambda leaf: leaf * 8 if leaf.ndim == 2 else leaf, params)


def save(workdir: Path, name: str, params, saved_identity, settings) -> None:
    with Checkpoints(workdir / name) as checkpoints:
        checkpoints.save(TrainState(jnp.int32(7), params, {}), saved_identity)
    save_vocabulary(VOCABULARY, workdir / "vocab.txt")
    (workdir / "config.json").write_text(json.dumps(settings))


def save_pretrained(workdir: Path, num_layers: int = 1) -> Path:
    """Leave what `eelbert pretrain` leaves."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=num_layers)
    params = params_of(bert.BertForMaskedLM(config))
    save(workdir, "checkpoints", params, identity(config, VOCABULARY, True), {})
    return workdir


def save_finetuned(
    workdir: Path, name: str, kind: str, labels=(), pairs=False, num_layers: int = 1, sizes=None, **fields
) -> Path:
    """Leave what `eelbert finetune` leaves; `sizes` are other fields of the micro's config."""
    task = TaskRecord(name, kind, tuple(labels), pairs, **{"max_length": 48, **fields})
    changes = dict(num_hidden_layers=num_layers, num_labels=max(len(labels), 1))
    config = sized("micro", vocab_size=VOCABULARY.size, **changes, **(sizes or {}))
    params = params_of(model_class(task)(config))
    saved_identity = {**identity(config, VOCABULARY, True), "task": task.to_dict()}
    for name_of_checkpoints in ("best", "checkpoints"):
        save(workdir, name_of_checkpoints, params, saved_identity, {})
    return workdir


def ids_of(text: str) -> list[int]:
    """Return the ids of words that are apart by spaces, each a token but "runs"."""
    return [VOCABULARY.id_of(token) for token in text.replace("runs", "run ##s").split()]


def logits_alone(model, text: str, second: str | None = None) -> np.ndarray:
    """Return a model's logits for one text of tokens, or a pair, without padding and without batches."""
    ids = [VOCABULARY.cls_id, *ids_of(text)[: model.max_length - 2], VOCABULARY.sep_id]
    segments = [0] * len(ids)
    if second is not None:
        later = [*ids_of(second), VOCABULARY.sep_id]
        ids, segments = ids + later, segments + [1] * len(later)
    apply = jax.jit(model_class(model.task)(model.config).apply)
    variables = {"params": model.params, "constants": model.constants}
    return np.asarray(apply(variables, np.array([ids]), None, np.array([segments]))[0], np.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
