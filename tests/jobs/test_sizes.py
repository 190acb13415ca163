"""The published parameter counts, reproduced exactly, and the table that prints them."""

import dataclasses
import json

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.jobs import sizes
from eelbert_jax.model.config import EMBEDDINGS, SIZES, sized

# EELBERT tables 1 and 2; UNO has no published table twin.
PUBLISHED = [
    ("base", "table", 109_514_298, 109_483_778),
    ("base", "ngram_hash", 86_073_402, 86_042_882),
    ("mini", "table", 11_201_594, 11_171_074),
    ("mini", "ngram_hash", 3_387_962, 3_357_442),
    ("tiny", "table", 4_416_698, 4_386_178),
    ("tiny", "ngram_hash", 509_882, 479_362),
    ("uno", "ngram_hash", 312_506, 281_986),
]


@pytest.mark.parametrize(("size", "embedding", "masked_lm", "two_class"), PUBLISHED)
def test_counts_are_the_published_ones(size, embedding, masked_lm, two_class):
    config = sized(size, embedding=embedding)
    counts = sizes.count_parameters(config)
    decoder = 0 if embedding == "table" else config.vocab_size * config.hidden_size
    pooler = config.hidden_size * (config.hidden_size + 1)
    assert tuple(counts.values()) == (masked_lm, masked_lm + decoder, two_class, two_class - pooler)


@pytest.mark.parametrize("width", [128, 312, 768])
def test_minialbert_counts_are_the_published_ones(width):
    """12.07M, 17.93M and 31.84M with adapters; the published checkpoint holds an unread pooler besides."""
    config = sized("minialbert", embedding="table", embedding_size=width)
    embeddings = (30_522 + 512 + 2) * width + 2 * width + (0 if width == 768 else width * 768 + 768)
    layer = 4 * (768 * 768 + 768) + 2 * (768 * 3072) + 3072 + 768 + 4 * 768
    adapters = 6 * 2 * ((768 * 48 + 48) + (48 * 768 + 768) + 2 * 768)
    assert adapters == 912_960
    encoder = embeddings + layer + adapters
    published = {128: 12_072_768, 312: 17_925_072, 768: 31_838_016}
    counts = sizes.count_parameters(config)
    assert encoder == counts["tagging"] - (768 + 1) * 2 == published[width]
    assert counts["2-class"] == counts["tagging"]  # [CLS] is read as it is
    without = sizes.count_parameters(dataclasses.replace(config, adapter_size=None))
    assert counts["tagging"] - without["tagging"] == adapters
    checkpoint = counts["MLM+decoder"] + 768 * 768 + 768
    assert width != 128 or checkpoint == 36_726_906


def test_count_follows_the_number_of_labels():
    """A negative control: the 2-class count is that of the configuration, not a constant."""
    two = sizes.count_parameters(sized("micro", num_labels=2))
    three = sizes.count_parameters(sized("micro", num_labels=3))
    assert three["2-class"] - two["2-class"] == sized("micro").hidden_size + 1
    assert three["MLM"] == two["MLM"]


def test_json_prints_every_combination_once(capsys):
    sizes.main(["--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(
        list(row) == ["size", "embedding", "convention", "parameters", "bytes_float32"] for row in rows
    )
    assert all(row["bytes_float32"] == 4 * row["parameters"] for row in rows)
    named = [(row["size"], row["embedding"], row["convention"]) for row in rows]
    expected = [(s, e, c) for s in SIZES for e in EMBEDDINGS for c in sizes.CONVENTIONS]
    assert named == expected


def test_table_names_every_model_and_convention():
    text = sizes.format_table(list(sizes.all_sizes()))
    assert all(name in text for name in [*SIZES, *EMBEDDINGS, *sizes.CONVENTIONS])
    assert "312,506" in text
    assert "109,514,298" in text


def test_unknown_flag_is_refused():
    with pytest.raises(UserError, match="--json"):
        sizes.main(["--jsn"])
