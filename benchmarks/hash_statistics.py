"""What does a hash function make of a vocabulary: how many tokens collide, and are inflected words alike?

    python benchmarks/hash_statistics.py --vocabulary vocab.txt

One JSON line a case. `exactly_colliding_tokens`: tokens that share their vector with another one (ours), of
how many (baseline), with the largest groups. `cosine_of_inflected_pairs`: mean cosine of word and word + s,
ed, ing, er or ly (ours) beside random pairs of the same words (baseline); the ratio is larger the more the
hash knows of morphology. Measured once: nothing is random but the pairing, whose seed is fixed.
"""

import json
import os
import sys
from pathlib import Path

import _measure
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import PRESETS, HashSpec
from eelbert_jax.hashing.statistics import collision_groups, likeness
from eelbert_jax.vocabulary import load_vocabulary

BENCHMARK = "hash_statistics"
NUM_GROUPS = 5

FUNCTIONS = {
    "default": PRESETS["default"],
    "reference": PRESETS["reference"],
    "whole_token_width=8": HashSpec(whole_token_width=8),
    "continuation=strip": HashSpec(continuation="strip"),
    "max_gram=2": HashSpec(max_gram=2),
    "max_gram=4": HashSpec(max_gram=4),
    "base=256": HashSpec(base=256),
    "bucket_size=65536": HashSpec(bucket_size=2**16),
}
"""Name of a case: the function; differences are from the default."""


def main() -> None:
    """Print the statistics of every function."""
    options = _measure.parser(__doc__)
    options.add_argument(
        "--vocabulary", type=Path, help="a vocab.txt; default: vocab/vocab.txt in the folder EELBERT_DATA"
    )
    options.add_argument("--width", type=int, default=128, help="width of the embedding, d")
    arguments = options.parse_args()
    try:
        tokens = load_vocabulary(_vocabulary_path(arguments.vocabulary)).tokens
    except UserError as error:
        sys.exit(str(error))
    names = ["default", "reference"] if arguments.quick else list(FUNCTIONS)
    for name in names:
        spec = FUNCTIONS[name]
        groups = collision_groups(spec, tokens)
        _print_case(
            arguments.json,
            case=f"exactly_colliding_tokens, {name}",
            ours=sum(map(len, groups)),
            baseline=len(tokens),
            unit="tokens (smaller is better)",
            num_groups=len(groups),
            largest_groups=groups[:NUM_GROUPS],
        )
        found = likeness(spec, tokens, arguments.width)
        if found.num_pairs < 2:
            sys.exit("The vocabulary has fewer than two inflected pairs: give one of whole words.")
        _print_case(
            arguments.json,
            case=f"cosine_of_inflected_pairs, {name}, d={arguments.width}",
            ours=found.inflected,
            baseline=found.random,
            unit="mean cosine (a larger ratio is better)",
            num_pairs=found.num_pairs,
        )


def _vocabulary_path(given: Path | None) -> Path:
    if given is not None:
        return given
    if "EELBERT_DATA" not in os.environ:
        raise UserError("No vocabulary: give --vocabulary FILE, or set EELBERT_DATA to a folder with one.")
    return Path(os.environ["EELBERT_DATA"]) / "vocab" / "vocab.txt"


def _print_case(quiet: bool, case: str, ours: float, baseline: float, unit: str, **more: object) -> None:
    """Print one case as a JSON line on standard output, and readably on standard error unless `quiet`."""
    line = {"benchmark": BENCHMARK, "case": case, "ours": ours, "baseline": baseline, "unit": unit}
    if not quiet:
        print(f"{case}: {ours:.4g} against {baseline:.4g} {unit} {more}", file=sys.stderr)
    print(json.dumps({**line, "ratio": float(f"{ours / baseline:.4g}"), **more}, ensure_ascii=False))


if __name__ == "__main__":
    main()
