"""Do hash vectors make a better start for a trained table? Reproduces the question of EELBERT's table 4."""

from collections.abc import Callable
from typing import Any

from ml_collections import config_dict

from eelbert_jax.config_files import load_config


def get_config(recipe: str = "mini") -> config_dict.ConfigDict:
    """Return the pre-training configuration that the grid varies."""
    return load_config(f"configs/pretrain.py:{recipe}")


def sweep(add: Callable[..., Any]) -> None:
    """Add the cells of the grid: random normal against the hash, by the paper's scale and by BERT's."""
    add(**{"config.model.embedding": "table"})
    add(**{"config.model.embedding": "hash_initialized"})
    # Brings the entries' standard deviation, about 0.25 for tokens of six characters, near BERT's 0.02.
    add(**{"config.model.embedding": "hash_initialized", "config.model.hash.scale": 0.08})
