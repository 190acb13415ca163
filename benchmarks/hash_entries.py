"""What should the entries of a wide hash be: grams of which length, and how many for the token as a whole?

    python benchmarks/hash_entries.py --vectors=runs/vectors

One JSON line a case: a ridge regression from the mean hash of a sentence's tokens, frequent ones weighted
down (1e-3 / (1e-3 + frequency)), to the teacher's vector; ours is Spearman's correlation of its cosines with
people's numbers on STS-B dev (no label of it is used), baseline that of the paper's split at the same width.
The vectors are those of `eelbert embed`. A minute of two cores a case at a width of 2048.
"""

import json
from collections.abc import Sequence

import numpy as np
from scipy import sparse

import _measure
from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.metrics import spearman
from eelbert_jax.datasets.splits import find_glue_dir
from eelbert_jax.datasets.tasks import find_task
from eelbert_jax.datasets.vectors import Vectors
from eelbert_jax.hashing.reference import hash_table
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.inference.suite import cosines

BENCHMARK = "hash_entries"
SHARES = {
    "1- to 3-grams, proportional": ((1 / 6, 1 / 3, 1 / 2), 0.0),
    "1- to 3-grams 1:8:23": ((1 / 32, 1 / 4, 23 / 32), 0.0),
    "1- to 4-grams, proportional": ((0.1, 0.2, 0.3, 0.4), 0.0),
    "1- to 4-grams 2:12:25:25": ((1 / 32, 3 / 16, 25 / 64, 25 / 64), 0.0),
    "1- to 3-grams, a quarter for the token": ((1 / 32, 7 / 32, 1 / 2), 1 / 4),
    "1- to 3-grams, half for the token": ((1 / 32, 5 / 32, 5 / 16), 1 / 2),
}
"""Name of a case: the shares of the entries that hash n-grams, and of those that hash the whole token."""
PENALTIES = (1e-3, 1e-2, 1e-1)
"""Of the regression, times the mean of the diagonal; the best counts, of each case alike."""


def main() -> None:
    """Print the correlation of every case."""
    options = _measure.parser(__doc__)
    options.add_argument("--vectors", required=True, help="folder made by eelbert embed")
    options.add_argument("--width", type=int, default=2048, help="entries, W")
    options.add_argument("--sentences", type=int, default=70_000, help="to fit, of five tokens and more")
    arguments = options.parse_args()
    vectors = Vectors.open(arguments.vectors)
    dev = load_examples(find_task("stsb"), "dev", glue_dir=find_glue_dir(None))
    encoded = [
        encode_texts(texts, None, vectors.vocabulary, 128, vectors.identity["lowercase"]).ids
        for texts in (dev.first, dev.second or ())
    ]
    long = np.flatnonzero(vectors.lengths > 4)
    chosen = np.random.default_rng(0).permutation(long)[: 2000 if arguments.quick else arguments.sentences]
    weights = _token_weights(vectors)
    bags = [_bags(ids, weights) for ids in ([vectors.ids[i] for i in chosen], *encoded)]
    baseline = None
    for case, (shares, whole) in SHARES.items():
        whole_token_width = round(whole * arguments.width)
        split = [round(share * arguments.width) for share in shares]
        split[-1] = arguments.width - whole_token_width - sum(split[:-1])
        spec = HashSpec(max_gram=len(shares), split=tuple(split), whole_token_width=whole_token_width)
        table = hash_table(spec, vectors.vocabulary.tokens, d=arguments.width)
        first, second = _mapped(table, bags, vectors.values[chosen].astype(np.float32))
        ours = max(spearman(cosines(a, b), dev.labels) for a, b in zip(first, second, strict=True))
        baseline = baseline or ours
        line = {
            "benchmark": BENCHMARK,
            "case": case,
            "ours": ours,
            "baseline": baseline,
            "ratio": ours / baseline,
        }
        print(json.dumps(line), flush=True)


def _token_weights(vectors: Vectors) -> np.ndarray:
    counts = np.bincount(np.concatenate(vectors.ids), minlength=vectors.vocabulary.size)
    return 1e-3 / (1e-3 + counts / counts.sum())


def _bags(ids: Sequence[np.ndarray], weights: np.ndarray) -> sparse.csr_matrix:
    """Return the weighted mean of each text's tokens, without [CLS] and [SEP], as rows [n, V]."""
    inner = [row[1:-1].astype(np.int64) for row in ids]
    rows = np.repeat(np.arange(len(inner)), [len(row) for row in inner])
    columns = np.concatenate(inner)
    values = weights[columns] / np.array([max(len(row), 1) for row in inner])[rows]
    return sparse.csr_matrix((values.astype(np.float32), (rows, columns)), (len(inner), len(weights)))


def _mapped(
    table: np.ndarray, bags: Sequence[sparse.csr_matrix], targets: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return what a ridge regression with each penalty makes of the first and the second texts."""
    fitted, *asked = (np.asarray(bag @ table) for bag in bags)
    mean = fitted.mean(axis=0)
    fitted -= mean
    covariance, products = fitted.T @ fitted, fitted.T @ (targets - targets.mean(axis=0))
    scale = np.trace(covariance) / len(covariance)
    maps = [
        np.linalg.solve(covariance + penalty * scale * np.eye(len(covariance), dtype=np.float32), products)
        for penalty in PENALTIES
    ]
    first, second = ([(texts - mean) @ matrix for matrix in maps] for texts in asked)
    return first, second


if __name__ == "__main__":
    main()
