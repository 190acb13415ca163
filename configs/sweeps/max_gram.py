"""How long should the grams be? N from 1 to 5."""

from collections.abc import Callable
from typing import Any

from ml_collections import config_dict

from eelbert_jax.config_files import load_config


def get_config(recipe: str = "tiny") -> config_dict.ConfigDict:
    """Return the pre-training configuration that the grid varies."""
    return load_config(f"configs/pretrain.py:{recipe}")


def sweep(add: Callable[..., Any]) -> None:
    """Add the cells of the grid, one for each N."""
    for max_gram in (1, 2, 3, 4, 5):
        add(**{"config.model.hash.max_gram": max_gram})
