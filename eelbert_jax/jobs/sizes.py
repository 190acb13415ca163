"""Print how many parameters every model has, by size, token embedding and counting convention.

Counts shapes, not arrays: nothing is allocated. Writes nothing.

Papers count differently, so every figure carries its convention (`CONVENTIONS`).
"""

import json
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eelbert_jax.jobs import command_line
from eelbert_jax.model.bert import BertForMaskedLM, BertForSequenceClassification
from eelbert_jax.model.config import EMBEDDINGS, SIZES, BertConfig, sized

CONVENTIONS = {
    "MLM": "no pooler; the decoder matrix counts only where it is tied to the table, as EELBERT counts.",
    "MLM+decoder": "the decoder matrix always counts, as it does in a pre-training checkpoint.",
    "2-class": "with pooler and classifier, without MLM head: what a fine-tuned model ships.",
}
"""What a count includes, by the convention's name."""

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
    if command_line.parse("sizes", argv).flags["json"]:
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


def count_parameters(config: BertConfig) -> dict[str, int]:
    """Return the number of parameters of a model by convention; `config.num_labels` is 2 in "2-class".

    Source: EELBERT, section 4 ("MLM").
    """
    masked_lm = _shapes(BertForMaskedLM(config))
    classifier = _shapes(BertForSequenceClassification(config))
    decoder = 0 if config.has_trained_table else _total(masked_lm["cls"]["predictions"]["decoder"])
    with_decoder = _total(masked_lm)
    return dict(zip(CONVENTIONS, (with_decoder - decoder, with_decoder, _total(classifier)), strict=True))


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


def _shapes(model: BertForMaskedLM | BertForSequenceClassification) -> dict:
    """Return the model's parameters as shapes."""
    input_ids = jnp.zeros((1, 1), jnp.int32)
    return jax.eval_shape(model.init, jax.random.key(0), input_ids)["params"]


def _total(shapes: dict) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
