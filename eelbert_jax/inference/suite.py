"""What sentence vectors are worth without fine-tuning: similarity, also misspelt; a probe; retrieval.

All that gives texts vectors is measured alike: models, TF-IDF, the mean of a hash that nothing trained.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from eelbert_jax.datasets.baselines import linear_probe, tfidf_vectors, unit
from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.metrics import spearman
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.datasets.typos import misspell, misspell_as
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.embeddings import initial_table

Vectors = Callable[[Sequence[str]], Any]
"""Texts [n] -> vectors [n, S], dense or sparse."""
Fit = Callable[[Sequence[str]], Vectors]
"""What is made of the texts that it may look at; only TF-IDF does."""

TYPOS = (0.05, 0.1, 0.2)
"""Shares of words with one edit."""
PROBED = 10_000
"""Training sentences that a probe learns from."""
NEAREST = 10
"""Passages that nDCG looks at."""


def run_suite(
    models: Sequence[tuple[str, Model]],
    glue_dir: str | None,
    misspellings: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield a row of scores of TF-IDF, of the first model's hash alone if it has one, and of every model.

    Their columns are the name and the parameters that a vector takes; Spearman's correlation of the cosine
    with people's numbers on STS-B dev, as it is, with typing errors and with `misspellings`; the accuracy on
    SST-2 dev of a logistic regression on the vectors; nDCG of finding the answer to a question among the
    sentences of QNLI dev.
    """
    texts = _Texts.read(glue_dir, misspellings)
    yield {"model": "TF-IDF", "parameters": None, **_scores(tfidf_vectors, texts)}
    hashed = next((model for _, model in models if not model.config.has_trained_table), None)
    if hashed is not None:
        scores = _scores(_unfitted(mean_of_hash(hashed)), texts)
        yield {"model": "mean of the hash", "parameters": 0, **scores}
    for name, model in models:
        scores = _scores(_unfitted(model.encode), texts)
        yield {"model": name, "parameters": model.num_encoder_parameters, **scores}


def _unfitted(vectors_of: Vectors) -> Fit:
    return lambda _: vectors_of


def mean_of_hash(model: Model) -> Vectors:
    """Return what gives texts the mean of their tokens' hashes, float32 [n, W], of a model's own hash."""
    table = initial_table(model.config, model.vocabulary)

    def vectors(texts: Sequence[str]) -> np.ndarray:
        encoded = encode_texts(texts, None, model.vocabulary, model.max_length, model.lowercase)
        return np.stack([table[ids[1:-1]].sum(axis=0) / max(len(ids) - 2, 1) for ids in encoded.ids])

    return vectors


class _Texts(NamedTuple):
    """Hold what the suite reads.

    Attributes:
      pairs: by column: as they are, and misspelt.
      right: [n], the places of the answers to `questions` in `passages`.
    """

    pairs: dict[str, tuple[list[str], list[str]]]
    numbers: np.ndarray
    probed: tuple[list[str], list[str]]
    classes: tuple[np.ndarray, np.ndarray]
    questions: list[str]
    passages: list[str]
    right: np.ndarray

    @classmethod
    def read(cls, glue_dir: str | None, misspellings: Mapping[str, Sequence[str]] | None) -> "_Texts":
        def read(name: str, split: str) -> tuple[list[str], list[str], np.ndarray]:
            found = load_examples(find_task(name), split, glue_dir=glue_dir)
            assert found.labels is not None
            return list(found.first), list(found.second or ()), found.labels

        first, second, numbers = read("stsb", "dev")
        changes: dict[str, Callable[[str], str]] = {
            f"{share:.0%} typos": functools.partial(misspell, share=share, seed=0) for share in TYPOS
        }
        if misspellings is not None:
            changes["misspelt"] = functools.partial(misspell_as, misspellings=misspellings, seed=0)
        misspelt = {
            column: (list(map(change, first)), list(map(change, second)))
            for column, change in changes.items()
        }
        (train, _, train_classes), (dev, _, dev_classes) = read("sst2", "train"), read("sst2", "dev")
        questions, sentences, labels = read("qnli", "dev")
        passages = list(dict.fromkeys(sentences))
        place = {passage: i for i, passage in enumerate(passages)}
        answered = np.flatnonzero(labels == find_task("qnli").labels.index("entailment"))
        return cls(
            {"STS-B": (first, second), **misspelt},
            numbers,
            (train[:PROBED], dev),
            (train_classes[:PROBED], dev_classes),
            [questions[i] for i in answered],
            passages,
            np.array([place[sentences[i]] for i in answered]),
        )


def _scores(fit: Fit, texts: _Texts) -> dict[str, float]:
    """Return the scores, by column, of what `fit` makes of texts."""
    first, second = texts.pairs["STS-B"]
    of_pairs, of_probed = fit([*first, *second]), fit(texts.probed[0])
    found = linear_probe(of_probed(texts.probed[0]), texts.classes[0], of_probed(texts.probed[1]))
    return {
        **{
            column: spearman(cosines(of_pairs(first), of_pairs(second)), texts.numbers)
            for column, (first, second) in texts.pairs.items()
        },
        "SST-2 probe": float(np.mean(found == texts.classes[1])),
        f"QNLI nDCG@{NEAREST}": ndcg(fit(texts.passages), texts.questions, texts.passages, texts.right),
    }


def cosines(first: Any, second: Any) -> np.ndarray:
    """Return the cosines of vectors [n, S] each, dense or sparse, float32 [n]; 0 where one has no length.

    Summed in float64, so that equal texts have equal cosines and rank alike.
    """
    first, second = unit(first.astype(np.float64)), unit(second.astype(np.float64))
    products = first.multiply(second) if issparse(first) else first * second
    return np.asarray(products.sum(axis=1), np.float32).ravel()


def ndcg(vectors_of: Vectors, questions: Sequence[str], passages: Sequence[str], right: np.ndarray) -> float:
    """Return the mean of 1 / log2(1 + rank) of each question's passage `right` [n], 0 beyond `NEAREST`."""
    asked, found, gains = unit(vectors_of(questions)), unit(vectors_of(passages)), []
    for start in range(0, len(right), 512):
        scores, rows = asked[start : start + 512] @ found.T, right[start : start + 512]
        scores = scores.toarray() if issparse(scores) else scores
        ranks = 1 + (scores > scores[np.arange(len(rows)), rows][:, None]).sum(axis=1)
        gains.append(np.where(ranks <= NEAREST, 1 / np.log2(1 + ranks), 0))
    return float(np.concatenate(gains).mean())
