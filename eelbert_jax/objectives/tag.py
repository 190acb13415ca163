"""Fine-tuning on words: a tag for each, read at its first piece."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eelbert_jax.datasets import encoding, metrics
from eelbert_jax.datasets.baselines import majority
from eelbert_jax.datasets.splits import Batch, Split, predict_words
from eelbert_jax.objectives.classify import Classify

Tags = list[np.ndarray]
"""For every sentence the tag ids of its words, int32 [words]; `encoding.IGNORED` for a word without one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tag(Classify):
    """The objective of a fine-tuning on tagged words."""

    def predictions(self, logits_of: Callable[[Batch], Any], split: Split) -> Tags:
        """Return a tag for every word; a word that truncation cut off has none, and still counts."""
        assert split.encoded.num_words is not None
        found = []
        of_sentences = predict_words(logits_of, split, self.batch_size)
        for logits, num_words in zip(of_sentences, split.encoded.num_words, strict=True):
            tags = np.full(num_words, encoding.IGNORED, np.int32)
            tags[: len(logits)] = np.argmax(logits, axis=-1)
            found.append(tags)
        return found

    def scores(self, predictions: Tags, split: Split) -> Mapping[str, float]:
        """Return the task's metrics: of entities over sentences, of tags over words."""
        assert isinstance(split.labels, tuple)
        return metrics.tag_scores(self.data.task.metrics, self.record.labels, predictions, split.labels)

    def is_degenerate(self, predictions: Tags) -> bool:
        """Whether every word gets the same tag."""
        return metrics.degenerate(np.concatenate(predictions))

    def majority(self, split: Split) -> Tags:
        """Return the predictions that are always the training split's most frequent tag."""
        assert isinstance(self.data.train.labels, tuple)
        assert split.encoded.num_words is not None
        tags = np.concatenate(self.data.train.labels)
        return [majority(tags, num_words) for num_words in split.encoded.num_words]

    def _named(self, tags: Sequence[np.ndarray]) -> list[list[str]]:
        """Return tags by name; a word without one is in no entity."""
        names = self.record.labels
        return [
            [metrics.OUTSIDE if tag == encoding.IGNORED else names[tag] for tag in sentence]
            for sentence in tags
        ]
