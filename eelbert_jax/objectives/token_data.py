"""A task with a tag for every word, read from files in CoNLL's columns, encoded and scored."""

import dataclasses
from collections.abc import Sequence

import ml_collections
import numpy as np

from eelbert_jax.datasets import encoding, metrics
from eelbert_jax.datasets.baselines import majority
from eelbert_jax.datasets.conll import OUTSIDE, TokenTask, load_conll
from eelbert_jax.errors import UserError
from eelbert_jax.model.bert import BertForTokenClassification
from eelbert_jax.objectives.examples import LogitsOf, Split, predict_words
from eelbert_jax.vocabulary import Vocabulary

Tags = list[np.ndarray]
"""For every sentence the tag ids of its words, int32 [words]; `encoding.IGNORED` for a word without one."""


@dataclasses.dataclass(frozen=True)
class TokenData:
    """A task with a tag for every word: its splits, and how answers are scored."""

    task: TokenTask
    train: Split
    dev: dict[str, Split]

    model_class = BertForTokenClassification

    def answer(self, logits_of: LogitsOf, split: Split, batch_size: int) -> Tags:
        """Return a tag for every word; a word that truncation cut off has none, and still counts."""
        assert split.encoded.num_words is not None
        found = []
        for logits, num_words in zip(
            predict_words(logits_of, split, batch_size), split.encoded.num_words, strict=True
        ):
            tags = np.full(num_words, encoding.IGNORED, np.int32)
            tags[: len(logits)] = np.argmax(logits, axis=-1)
            found.append(tags)
        return found

    def scores(self, answers: Tags, split: Split) -> dict[str, float]:
        """Return the task's metrics: of entities over sentences, of tags over words."""
        assert isinstance(split.labels, tuple)
        figures = {}
        for name in self.task.metrics:
            if name == "entity_f1":
                figures[name] = metrics.entity_f1(self._named(answers), self._named(split.labels))
            else:
                words = np.concatenate(answers), np.concatenate(split.labels)
                figures |= metrics.scores((name,), *words)
        return figures

    def is_degenerate(self, answers: Tags) -> bool:
        """Whether every word gets the same tag."""
        return metrics.degenerate(np.concatenate(answers))

    def majority(self, split: Split) -> Tags:
        """Return the answers that are always the training split's most frequent tag."""
        assert isinstance(self.train.labels, tuple)
        assert split.encoded.num_words is not None
        tags = np.concatenate(self.train.labels)
        return [majority(tags, num_words) for num_words in split.encoded.num_words]

    def _named(self, tags: Sequence[np.ndarray]) -> list[list[str]]:
        """Return tags by name; a word without one is in no entity."""
        return [
            [OUTSIDE if i == encoding.IGNORED else self.task.labels[i] for i in sentence] for sentence in tags
        ]


def load_token_data(config: ml_collections.ConfigDict, vocabulary: Vocabulary, lowercase: bool) -> TokenData:
    """Read and encode the training and the development file; say what was out of order or cut.

    The tags are those of the training file, unless the config names them: one that the development file alone
    has could never be learned.

    Raises:
      UserError: a file is not named, is missing or not of its format, or a tag is none of the task's.
    """
    tokens, found = config.tokens, {}
    labels: tuple[str, ...] = tuple(tokens.labels.split(",")) if tokens.labels else ()
    for split in ("train", "dev"):
        if tokens[split] is None:
            raise UserError(
                f"task=tokens needs a file of words and tags for {split}: set --config.tokens.{split}=FILE."
            )
        examples = load_conll(
            tokens[split], labels, word_column=tokens.word_column, tag_column=tokens.tag_column
        )
        labels = examples.labels
        if len(labels) < 2:
            raise UserError(f"{tokens.train} has one tag alone, {labels[0]!r}; expected two or more.")
        encoded = encoding.encode_words(examples.words, vocabulary, config.max_length, lowercase)
        found[split] = Split(encoded, examples.tags)
        print(
            f"{config.task} {split}: {examples.tally.describe()}; {encoded.num_truncated} cut to "
            f"{config.max_length} tokens",
            flush=True,
        )
    entities = all(map(metrics.is_entity_tag, labels))
    task = TokenTask(labels, ("entity_f1", "accuracy") if entities else ("accuracy",))
    return TokenData(task, found["train"], {"dev": found["dev"]})
