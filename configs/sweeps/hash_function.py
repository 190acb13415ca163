"""Does morphology matter? The n-gram hash against a random hash, a trained table and other hash functions.

Reproduces the question of EELBERT's table 3. A cell is a run of `eelbert pretrain` with this file as config.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import config_dict

from eelbert_jax.config_files import load_config

REFERENCE_BUCKET_SIZE = 10**9 + 7
"""B of two public reimplementations, with base 31 and N = 3."""


def get_config(recipe: str = "mini") -> config_dict.ConfigDict:
    """Return the pre-training configuration that the grid varies."""
    return load_config(f"configs/pretrain.py:{recipe}")


def sweep(add: Callable[..., Any]) -> None:
    """Add the cells of the grid, each the overrides of one run."""
    add(**{"config.model.embedding": "ngram_hash"})
    add(**{"config.model.embedding": "random_hash"})
    add(**{"config.model.embedding": "table"})
    add(
        **{
            "config.model.embedding": "ngram_hash",
            "config.model.hash.bucket_size": REFERENCE_BUCKET_SIZE,
        }
    )
    add(**{"config.model.embedding": "ngram_hash", "config.model.hash.base": 257})
    add(**{"config.model.embedding": "ngram_hash", "config.model.hash.whole_token_width": 32})
