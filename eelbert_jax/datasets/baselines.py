"""Baselines that a BERT has to beat; the linear ones reach their one optimum, without a seed or tuning."""

import contextlib
import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from eelbert_jax.datasets.tasks import CLASSIFY, MULTILABEL, REGRESS
from eelbert_jax.errors import UserError

WORD = re.compile(r"\w+|[^\w\s]")
LINEAR = ("bag_of_words", "tfidf")
TAG_LOOKUP = "tag_lookup"
MOST_ITERATIONS = 10_000
"""Of the solver, which ends at its tolerance long before."""


def majority(labels: np.ndarray, num_examples: int) -> np.ndarray:
    """Return for all examples the most frequent class of int `labels`, or the mean of float ones.

    Of several labels a text, int [n, C], those that half of the texts have.
    """
    if labels.ndim == 2:
        return np.tile((labels.mean(axis=0) >= 0.5).astype(np.int32), (num_examples, 1))
    if np.issubdtype(labels.dtype, np.floating):
        return np.full(num_examples, labels.mean(), np.float32)
    return np.full(num_examples, np.bincount(labels).argmax(), np.int32)


def words_of(texts: tuple[str, ...]) -> list[str]:
    """Return the words of a text; of a pair those of each, those of both, and those of one alone, marked."""
    bags = [Counter(WORD.findall(text.lower())) for text in texts]
    if len(bags) == 1:
        return list(bags[0].elements())
    first, second = bags
    parts = {"1": first, "2": second, "both": first & second, "one": (first - second) + (second - first)}
    return [f"{mark} {word}" for mark, bag in parts.items() for word in bag.elements()]


def words_and_bigrams_of(texts: tuple[str, ...]) -> list[str]:
    """Return the words as `words_of`, and the neighbours in each text."""
    found = words_of(texts)
    for number, text in enumerate(texts, start=1):
        words = WORD.findall(text.lower())
        mark = f"{number} " * (len(texts) > 1)
        found += [f"{mark}{a} {b}" for a, b in itertools.pairwise(words)]
    return found


def overlap(texts: tuple[str, ...]) -> float:
    """Return the share of words that a pair has in common, 0 of a single text."""
    bags = [Counter(WORD.findall(text.lower())) for text in texts]
    both = (bags[0] & bags[-1]).total() if len(bags) > 1 else 0
    return 2 * both / max(sum(bag.total() for bag in bags), 1)


@dataclasses.dataclass(frozen=True)
class LinearBaseline:
    """Fit words, or TF-IDF of words and bigrams, by logistic or ridge regression.

    Rows are scaled to length 1: plain counts lose .15 of STS-B's correlation.
    """

    vectorizer: Any
    model: Any

    @classmethod
    def fit(
        cls, name: str, first: Sequence[str], second: Sequence[str] | None, labels: np.ndarray, kind: str
    ) -> "LinearBaseline":
        """Train on texts or pairs of texts.

        Args:
          labels: class ids int [n], numbers float [n], or 0 and 1 int [n, C], each label decided on its own.
        """
        with _sklearn_needed():
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.linear_model import LogisticRegression, Ridge
            from sklearn.multiclass import OneVsRestClassifier
        if kind == CLASSIFY and len(np.unique(labels)) < 2:
            raise UserError(f"A baseline learns from two classes or more, got {len(np.unique(labels))}.")
        is_tfidf = name == "tfidf"
        vectorizer = TfidfVectorizer(
            analyzer=words_and_bigrams_of if is_tfidf else words_of, use_idf=is_tfidf, norm="l2"
        )
        examples = _examples(first, second)
        try:
            vectorizer.fit(examples)
        except ValueError as error:
            raise UserError("A baseline of words needs training texts with words, got none.") from error
        model = Ridge() if kind == REGRESS else LogisticRegression(max_iter=MOST_ITERATIONS)
        if kind == MULTILABEL:
            model = OneVsRestClassifier(model)
        return cls(vectorizer, model.fit(_matrix(vectorizer, examples), labels))

    def predict(self, first: Sequence[str], second: Sequence[str] | None) -> np.ndarray:
        """Return class ids int [n], numbers float [n], or 0 and 1 int [n, C]."""
        return self.model.predict(_matrix(self.vectorizer, _examples(first, second)))

    @property
    def num_parameters(self) -> int:
        """Weights and biases."""
        parts = getattr(self.model, "estimators_", [self.model])
        return sum(int(np.size(part.coef_) + np.size(part.intercept_)) for part in parts)


def tfidf_vectors(texts: Sequence[str]) -> Callable[[Sequence[str]], Any]:
    """Return what gives texts TF-IDF vectors, sparse [n, words] of length 1; `texts` say what is rare."""
    with _sklearn_needed():
        from sklearn.feature_extraction.text import TfidfVectorizer
    return TfidfVectorizer(analyzer=lambda text: words_of((text,))).fit(texts).transform


def linear_probe(train: Any, labels: np.ndarray, vectors: Any) -> np.ndarray:
    """Return the classes of `vectors` [n, S] by a logistic regression on `train` [m, S], `labels` [m]."""
    with _sklearn_needed():
        from sklearn.linear_model import LogisticRegression
    return LogisticRegression(max_iter=MOST_ITERATIONS).fit(train, labels).predict(vectors)


def unit(vectors: Any) -> Any:
    """Return vectors, dense or sparse [n, S], at length 1; 0 stays 0."""
    with _sklearn_needed():
        from sklearn.preprocessing import normalize
    return normalize(vectors)


@contextlib.contextmanager
def _sklearn_needed() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            "The baselines of words need scikit-learn: pip install 'eelbert_jax[baseline]'."
        ) from error


def _examples(first: Sequence[str], second: Sequence[str] | None) -> list[tuple[str, ...]]:
    return [(a,) for a in first] if second is None else list(zip(first, second, strict=True))


def _matrix(vectorizer: Any, examples: Sequence[tuple[str, ...]]) -> Any:
    import scipy.sparse

    counts = vectorizer.transform(examples)
    if len(examples[0]) == 1:
        return counts
    return scipy.sparse.hstack([counts, np.array([[overlap(texts)] for texts in examples])], format="csr")


@dataclasses.dataclass(frozen=True)
class TagLookup:
    """The most frequent tag of a word in training; of an unknown word, of all words."""

    tags: dict[str, int]
    default: int

    @classmethod
    def fit(cls, words: Sequence[Sequence[str]], tags: Sequence[np.ndarray]) -> "TagLookup":
        """Count n sentences of words with the tag ids of each."""
        counts: dict[str, Counter[int]] = {}
        for sentence, of_words in zip(words, tags, strict=True):
            for word, tag in zip(sentence, of_words.tolist(), strict=True):
                counts.setdefault(word, Counter())[tag] += 1
        total = sum(counts.values(), Counter[int]())
        return cls({word: _most_frequent(tags) for word, tags in counts.items()}, _most_frequent(total))

    def predict(self, words: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Return the tag ids of sentences, int32 [words] each."""
        return [
            np.array([self.tags.get(word, self.default) for word in sentence], np.int32) for sentence in words
        ]

    @property
    def num_parameters(self) -> int:
        """Words, and the default."""
        return len(self.tags) + 1


def _most_frequent(counts: Counter[int]) -> int:
    """Return the most frequent tag, of equals the one with the lowest id."""
    return min(counts, key=lambda tag: (-counts[tag], tag))
