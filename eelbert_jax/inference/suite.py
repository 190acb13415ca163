"""What sentence vectors are worth without fine-tuning: similarity, also misspelt; a probe; retrieval.

All that gives texts vectors is measured alike: models, TF-IDF, the mean of a hash that nothing trained.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from eelbert_jax.datasets.baselines import linear_probe, tfidf_vectors, unit
from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.datasets.glue import Examples, load_examples
from eelbert_jax.datasets.metrics import spearman
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.datasets.typos import misspell
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.embeddings import initial_table

Vectors = Callable[[Sequence[str]], Any]
"""Texts [n] -> vectors [n, S], dense or sparse."""

TYPOS = (0.05, 0.1, 0.2)
"""Shares of words with one edit."""
PROBED = 10_000
"""Training sentences that a probe learns from."""
NEAREST = 10
"""Passages that nDCG looks at."""


class Scores(NamedTuple):
    """Hold what some vectors score.

    Attributes:
      stsb: Spearman's correlation of the cosine with people's numbers, STS-B dev; `stsb_typos` misspelt, by
        `TYPOS`.
      sst2: accuracy of a logistic regression on the vectors, SST-2 dev.
      qnli: nDCG at `NEAREST` of finding the sentence that answers a question, among those of QNLI dev.
    """

    stsb: float
    stsb_typos: tuple[float, ...]
    sst2: float
    qnli: float


class Line(NamedTuple):
    """Hold a row of the suite's table; parameters are those that a vector takes."""

    name: str
    parameters: int | None
    scores: Scores


def run_suite(models: Sequence[tuple[str, Model]], glue_dir: str | None) -> Iterator[Line]:
    """Yield the scores of TF-IDF, of the first model's hash alone if it has one, and of every model."""
    texts = _Texts(
        load_examples(find_task("stsb"), "dev", glue_dir=glue_dir),
        load_examples(find_task("sst2"), "train", glue_dir=glue_dir),
        load_examples(find_task("sst2"), "dev", glue_dir=glue_dir),
        load_examples(find_task("qnli"), "dev", glue_dir=glue_dir),
    )
    yield Line("TF-IDF", None, _scores(tfidf_vectors, texts))
    hashed = next((model for _, model in models if not model.config.has_trained_table), None)
    if hashed is not None:
        yield Line("mean of the hash", 0, _scores(lambda _: mean_of_hash(hashed), texts))
    for name, model in models:
        yield Line(name, model.num_encoder_parameters, _scores(lambda _, model=model: model.encode, texts))


def mean_of_hash(model: Model) -> Vectors:
    """Return what gives texts the mean of their tokens' hashes, float32 [n, W], of a model's own hash."""
    table = initial_table(model.config, model.vocabulary)

    def vectors(texts: Sequence[str]) -> np.ndarray:
        encoded = encode_texts(texts, None, model.vocabulary, model.max_length, model.lowercase)
        return np.stack([table[ids[1:-1]].sum(axis=0) / max(len(ids) - 2, 1) for ids in encoded.ids])

    return vectors


class _Texts(NamedTuple):
    stsb: Examples
    sst2_train: Examples
    sst2: Examples
    qnli: Examples


def _scores(fit: Callable[[Sequence[str]], Vectors], texts: _Texts) -> Scores:
    """Return the scores of what `fit`, given the texts that it may look at, makes of texts."""
    first, second = list(texts.stsb.first), list(texts.stsb.second or ())
    vectors_of = fit(first + second)

    def similarity(share: float) -> float:
        misspelt = [[misspell(text, share, seed=0) for text in side] for side in (first, second)]
        return spearman(cosines(*map(vectors_of, misspelt)), texts.stsb.labels)

    train = list(texts.sst2_train.first[:PROBED])
    probe = fit(train)
    sst2 = linear_probe(probe(train), texts.sst2_train.labels[:PROBED], probe(list(texts.sst2.first)))
    passages = list(dict.fromkeys(texts.qnli.second or ()))
    place = {passage: i for i, passage in enumerate(passages)}
    answered = np.flatnonzero(texts.qnli.labels == find_task("qnli").labels.index("entailment"))
    right = np.array([place[(texts.qnli.second or ())[i]] for i in answered])
    return Scores(
        similarity(0.0),
        tuple(similarity(share) for share in TYPOS),
        float(np.mean(sst2 == texts.sst2.labels)),
        ndcg(fit(passages), [texts.qnli.first[i] for i in answered], passages, right),
    )


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
