"""The released models, sentence encoders in int8: `pocket` of at most 1.2 MB, and `pocket-uno` of 0.4.

    make pocket            # embeds, trains, exports and scores both; docs/models.md has what came of it

A hash of many entries, projected, is where their bytes are.
"""

from typing import NamedTuple

from ml_collections import config_dict

from eelbert_jax.config_files import load_config
from eelbert_jax.errors import unknown


class Recipe(NamedTuple):
    """Say what a model is: its size, its feed-forward width, its hash's entries and their split."""

    size: str
    intermediate_size: int
    hash_width: int
    split: str
    whole_token_width: int


RECIPES = {
    "pocket": Recipe("tiny", 1024, 3328, "96,512,1424", 1296),
    "pocket-uno": Recipe("uno", 128, 1024, "proportional", 0),
}


def get_config(recipe: str = "pocket") -> config_dict.ConfigDict:
    """Return the configuration of `eelbert distill` that trains `recipe`."""
    if recipe not in RECIPES:
        raise unknown("recipe of configs/pocket.py", recipe, RECIPES)
    size, intermediate_size, hash_width, split, whole_token_width = RECIPES[recipe]
    config = load_config(f"configs/distill.py:embedding,size={size},hash_width={hash_width}")
    config.recipe = recipe
    config.model.intermediate_size = intermediate_size
    config.model.hash.split = split
    config.model.hash.whole_token_width = whole_token_width
    config.model.max_position_embeddings = 128
    config.max_length = 96
    config.num_epochs = 6
    return config
