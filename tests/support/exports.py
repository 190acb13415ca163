"""Models of random parameters, of every head, to be exported."""

from pathlib import Path

from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.inference.predict import Model, model_class
from eelbert_jax.model import bert
from eelbert_jax.model.config import sized
from support.folders import random_params
from support.models import VOCABULARY

LABELS = ("no", "maybe", "yes")


def model(kind=None, vocabulary=VOCABULARY, pairs=False, **changes):
    """Return a micro model: of a kind of task, a sentence encoder by its `sentence_size`, or a masked LM."""
    task = None
    if kind is not None:
        labels = () if kind == "regress" else LABELS
        task = TaskRecord("mine", kind, labels, pairs, 48, mean=2.0, std=0.5)
        changes["num_labels"] = max(len(labels), 1)
    dropout = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = sized("micro", **{"vocab_size": vocabulary.size, **dropout, **changes})
    pretrained = bert.BertForSentenceEmbedding if config.sentence_size else bert.BertForMaskedLM
    module = pretrained(config) if task is None else model_class(task)(config)
    params = random_params(module)
    return Model(
        path=Path("micro"),
        config=config,
        vocabulary=vocabulary,
        params=params,
        constants=bert.constants(config, vocabulary, params),
        lowercase=True,
        step=1,
        task=task,
    )
