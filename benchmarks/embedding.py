"""What does hashing instead of looking up cost a whole forward pass?

    python benchmarks/embedding.py [--sizes=tiny,mini,base] [--batches=1,32] [--quick] [--json]

Times a classifier's forward pass over rows of 128 tokens with a hashed embedding and with a trained table, so
a ratio below 1 favours the hash. Every way to compute the hash takes turns with the table:

    cached           gather from the table of hashed vectors; the same program for every B
    on_the_fly       gather signatures, project and pool them: B = 2^32, no table in memory
    modulus_16_bit   another hash: B = 65521, the largest prime below 2^16, a division a gram and entry
    outer_product    as `on_the_fly`, but all projections [tokens, K, d] at once, then their mean
    characters       from the strings themselves, in a vocabulary or not: signatures are computed too

All but `modulus_16_bit` are checked to give the same logits. The last two stand in no model of the package:
their vectors are handed to one as a cached table of a row a token, whose gather they pay on top.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import _measure
from eelbert_jax.hashing import steps as hashing
from eelbert_jax.hashing.reference import code_points, reference_signatures
from eelbert_jax.hashing.spec import HashSpec, hash_seeds
from eelbert_jax.model.bert import BertForSequenceClassification, constants
from eelbert_jax.model.config import SIZES, BertConfig, sized
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary

LENGTH = 128
VOCAB_SIZE, LONGEST_TOKEN = 30_522, 18  # of bert-base-uncased; the longest token sets the cost of every token
LARGEST_16_BIT_PRIME = 65_521
FEWEST_TURNS, MOST_TURNS = 5, 2000

Forward = Callable[[], Any]


def made_up_vocabulary() -> Vocabulary:
    """Return as many tokens as bert-base-uncased has, up to its longest, of random letters."""
    random = np.random.default_rng(0)
    letters = np.asarray(list("abcdefghijklmnopqrstuvwxyz"))
    tokens = dict.fromkeys(SPECIAL_TOKENS)
    while len(tokens) < VOCAB_SIZE:
        tokens["".join(random.choice(letters, random.integers(4, LONGEST_TOKEN + 1)))] = None
    return Vocabulary(tuple(tokens))


def model_forward(config: BertConfig, params: Any, vocabulary: Vocabulary, ids: np.ndarray) -> Forward:
    """Return the forward pass of a model as the package has it."""
    model = BertForSequenceClassification(config)
    placed = jax.device_put(({"params": params, "constants": constants(config, vocabulary)}, ids))
    forward = jax.jit(model.apply)
    return lambda: jax.block_until_ready(forward(*placed))


def vectors_forward(
    size: str, params: Any, batch: int, embed: Callable[..., jax.Array], *inputs: np.ndarray
) -> Forward:
    """Return the forward pass of a model whose tokens' vectors, [tokens, D], are `embed(*inputs)`."""
    num_tokens = batch * LENGTH
    model = BertForSequenceClassification(sized(size, vocab_size=num_tokens))

    @jax.jit
    def forward(params: Any, ids: jax.Array, *inputs: jax.Array) -> Any:
        of_tokens = {"bert": {"embeddings": {"word_embeddings": {"table": embed(*inputs)}}}}
        return model.apply({"params": params, "constants": of_tokens}, ids)

    placed = jax.device_put((params, np.arange(num_tokens).reshape(batch, LENGTH), *inputs))
    return lambda: jax.block_until_ready(forward(*placed))


def outer_product(grams: jax.Array, counts: jax.Array, d: int) -> jax.Array:
    """Embed as the paper writes it: project all grams, then average; arguments as `embed_signatures`."""
    spec, seeds = HashSpec(), hash_seeds(HashSpec(), d)
    parts = []
    for part, seeds_of_part in enumerate(np.split(seeds, np.cumsum(spec.widths(d))[:-1])):
        projections = hashing.centre(hashing.project(grams[:, part], jnp.asarray(seeds_of_part), spec), spec)
        total = jnp.sum(projections.astype(jnp.float32), axis=1)
        parts.append(total / (2.0**31 * counts[:, part, None]))
    return jnp.concatenate(parts, axis=-1)


def forwards(size: str, batch: int, vocabulary: Vocabulary) -> dict[str, Forward]:
    """Return the table's forward pass and those of every way to hash, on the same tokens and weights."""
    width = sized(size).embedding_width
    ids = np.random.default_rng(1).integers(0, vocabulary.size, (batch, LENGTH), dtype=np.int32)
    characters, lengths = code_points([vocabulary.tokens[i] for i in ids.flat])
    grams, counts = reference_signatures(HashSpec(), characters, lengths)

    def config(**changes: Any) -> BertConfig:
        return sized(size, vocab_size=vocabulary.size, **changes)

    table = BertForSequenceClassification(config(embedding="table"))
    params = jax.jit(table.init)(jax.random.key(0), ids)["params"]
    embeddings = {
        name: leaf for name, leaf in params["bert"]["embeddings"].items() if name != "word_embeddings"
    }
    hashed = {**params, "bert": {**params["bert"], "embeddings": embeddings}}
    on_the_fly = config(embedding_mode="on_the_fly")
    modulus = config(embedding_mode="on_the_fly", hash=HashSpec(bucket_size=LARGEST_16_BIT_PRIME))
    return {
        "table": model_forward(config(embedding="table"), params, vocabulary, ids),
        "cached": model_forward(config(), hashed, vocabulary, ids),
        "on_the_fly": model_forward(on_the_fly, hashed, vocabulary, ids),
        "modulus_16_bit": model_forward(modulus, hashed, vocabulary, ids),
        "outer_product": vectors_forward(
            size, hashed, batch, lambda g, c: outer_product(g, c, width), grams, counts
        ),
        "characters": vectors_forward(
            size,
            hashed,
            batch,
            lambda c, n: hashing.embed_strings(c, n, HashSpec(), width),
            characters,
            lengths,
        ),
    }


def measure(size: str, batch: int, vocabulary: Vocabulary, seconds: float) -> dict[str, float]:
    """Let all ways take turns for about so many seconds; return the median of each in milliseconds."""
    cases = forwards(size, batch, vocabulary)
    for name in ("on_the_fly", "outer_product", "characters"):
        np.testing.assert_allclose(cases[name](), cases["cached"](), rtol=1e-3, atol=1e-4, err_msg=name)
    trial = sum(_measure.interleaved(cases, turns=2).values())
    turns = min(MOST_TURNS, max(FEWEST_TURNS, int(seconds / trial)))
    medians = _measure.interleaved(cases, turns, warmup=0)
    return {name: 1e3 * median for name, median in medians.items()}


def main() -> None:
    """Compare every way to hash with the table."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--sizes", default="tiny,mini,base", help="encoder sizes (default: tiny,mini,base)")
    parser.add_argument("--batches", default="1,32", help="rows a call (default: 1,32)")
    parser.add_argument(
        "--vocabulary", help="vocab.txt to hash (default: made-up tokens of the same lengths)"
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="for a size and batch (default: 60)")
    options = parser.parse_args()
    if options.quick:
        options.sizes, options.batches, options.seconds = "tiny", "1", 3.0
    check_options(parser, options)
    vocabulary = load_vocabulary(options.vocabulary) if options.vocabulary else made_up_vocabulary()
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    for size in options.sizes.split(","):
        for batch in map(int, options.batches.split(",")):
            medians = measure(size, batch, vocabulary, options.seconds)
            baseline = medians.pop("table")
            for name, median in medians.items():
                case = f"{size} {batch}x{LENGTH} forward: {name} against table"
                _measure.report("embedding", case, median, baseline, "ms", options.json)


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with a message where a size or a batch is none."""
    unknown = set(options.sizes.split(",")) - set(SIZES)
    if unknown:
        parser.error(f"unknown sizes {', '.join(sorted(unknown))}; known: {', '.join(SIZES)}")
    if not all(batch.isdigit() and int(batch) for batch in options.batches.split(",")):
        parser.error(f"--batches takes integers such as 1,32, got {options.batches!r}")


if __name__ == "__main__":
    main()
