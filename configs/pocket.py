"""The released models, sentence encoders in int8: `pocket` of at most 1.2 MB, and `pocket-uno` of 0.4.

    make pocket            # embeds, trains, exports and scores both; docs/models.md has what came of it

A hash of many entries, projected, is where their bytes are.
"""

from typing import NamedTuple

from ml_collections import config_dict

from eelbert_jax.config_files import load_config
from eelbert_jax.errors import unknown


class Recipe(NamedTuple):
    """Say what a model is: its size, the entries of its hash, how they are split, and its epochs."""

    size: str
    hash_width: int
    split: str
    whole_token_width: int
    num_epochs: int


RECIPES = {
    "pocket": Recipe("tiny", 5120, "96,672,2304", 2048, 3),
    "pocket-uno": Recipe("uno", 1024, "proportional", 0, 6),
}


def get_config(recipe: str = "pocket") -> config_dict.ConfigDict:
    """Return the configuration of `eelbert distill` that trains `recipe`."""
    if recipe not in RECIPES:
        raise unknown("recipe of configs/pocket.py", recipe, RECIPES)
    size, hash_width, split, whole_token_width, num_epochs = RECIPES[recipe]
    config = load_config(f"configs/distill.py:embedding,size={size},hash_width={hash_width}")
    config.recipe = recipe
    config.model.hash.split = split
    config.model.hash.whole_token_width = whole_token_width
    config.model.max_position_embeddings = 128
    config.max_length = 96
    config.num_epochs = num_epochs
    return config
