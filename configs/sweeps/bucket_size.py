"""How many buckets does the hash need? B from 2^8 to 2^32, and the prime of two public reimplementations."""

from collections.abc import Callable
from typing import Any

from ml_collections import config_dict

from eelbert_jax.config_files import load_config


def get_config(recipe: str = "tiny") -> config_dict.ConfigDict:
    """Return the pre-training configuration that the grid varies."""
    return load_config(f"configs/pretrain.py:{recipe}")


def sweep(add: Callable[..., Any]) -> None:
    """Add the cells of the grid, one for each B."""
    for bucket_size in (2**8, 2**12, 2**16, 2**24, 10**9 + 7, 2**32):
        add(**{"config.model.hash.bucket_size": bucket_size})
