"""`eelbert sizes`: parameters and bytes of every size, token embedding and counting convention."""

import json
from collections.abc import Iterator
from typing import NamedTuple

from eelbert_jax import cli
from eelbert_jax.model.config import EMBEDDINGS, SIZES, sized
from eelbert_jax.model.count import CONVENTIONS, count_parameters

BYTES_PER_FLOAT32 = 4


class Size(NamedTuple):
    """Hold one figure; the fields are the keys of `--json`."""

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
    """Yield every size, embedding and convention, sizes ascending, V = 30,522."""
    for size in SIZES:
        for embedding in EMBEDDINGS:
            for convention, parameters in count_parameters(sized(size, embedding=embedding)).items():
                yield Size(size, embedding, convention, parameters, BYTES_PER_FLOAT32 * parameters)


def format_table(sizes: list[Size]) -> str:
    """Return the figures as text; megabytes are 10^6 bytes."""
    lines = [f"{'size':<11}{'embedding':<18}" + "".join(f"{name:>13}{'MB':>8}" for name in CONVENTIONS)]
    by_model: dict[tuple[str, str], str] = {}
    for size in sizes:
        cells = f"{size.parameters:>13,}{size.bytes_float32 / 1e6:>8.2f}"
        by_model[size.size, size.embedding] = by_model.get((size.size, size.embedding), "") + cells
    lines += [f"{size:<11}{embedding:<18}{cells}" for (size, embedding), cells in by_model.items()]
    lines += ["", "Parameters, and MB: 10^6 bytes of float32. V = 30,522, 512 positions, 2 segment types."]
    lines += [f"{name}: {meaning}" for name, meaning in CONVENTIONS.items()]
    return "\n".join(lines)
