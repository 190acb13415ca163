"""Print how many parameters every model has, by size, token embedding and counting convention.

Counts shapes, not arrays: nothing is allocated. Writes nothing.

Papers count differently, so every figure carries its convention (`CONVENTIONS`).
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from eelbert_jax import cli
from eelbert_jax.model.config import EMBEDDINGS, SIZES, sized
from eelbert_jax.model.count import CONVENTIONS, count_parameters

BYTES_PER_FLOAT32 = 4


class Size(NamedTuple):
    """One figure; the fields are the keys of `--json`."""

    size: str
    embedding: str
    convention: str
    parameters: int
    bytes_float32: int


def main(argv: list[str]) -> None:
    """Print the table, or with `--json` one object a line."""
    if cli.parse("sizes", argv).flags["json"]:
        for size in all_sizes():
            print(json.dumps(size._asdict()))
    else:
        print(format_table(list(all_sizes())))


def all_sizes() -> Iterator[Size]:
    """Yield every size x embedding x convention, sizes ascending, V = 30,522. Source: EELBERT, table 2."""
    for size in SIZES:
        for embedding in EMBEDDINGS:
            for convention, parameters in count_parameters(sized(size, embedding=embedding)).items():
                yield Size(size, embedding, convention, parameters, BYTES_PER_FLOAT32 * parameters)


def format_table(sizes: list[Size]) -> str:
    """Return the figures as text, a line for each size and embedding, megabytes of 10^6 bytes."""
    lines = [
        f"{'size':<7}{'embedding':<18}"
        + "".join(f"{name + ' parameters':>24}{'MB':>8}" for name in CONVENTIONS)
    ]
    by_model: dict[tuple[str, str], dict[str, Size]] = {}
    for size in sizes:
        by_model.setdefault((size.size, size.embedding), {})[size.convention] = size
    for (name, embedding), figures in by_model.items():
        columns = (figures[convention] for convention in CONVENTIONS)
        cells = "".join(f"{size.parameters:>24,}{size.bytes_float32 / 1e6:>8.2f}" for size in columns)
        lines.append(f"{name:<7}{embedding:<18}{cells}")
    lines += ["", "MB: float32 parameters, 10^6 bytes. V = 30,522, 512 positions, 2 segment types."]
    lines += [f"{name}: {meaning}" for name, meaning in CONVENTIONS.items()]
    return "\n".join(lines)
