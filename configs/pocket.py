"""The released models, sentence encoders in int8: `pocket` of at most 1.2 MB, and `pocket-uno` of 0.4.

    make pocket            # embeds, trains, exports and scores both; docs/models.md has what came of it

A hash of many entries, projected, is where their bytes are.
"""

from typing import NamedTuple

from ml_collections import config_dict

from eelbert_jax.config_files import load_config
from eelbert_jax.errors import unknown


class Recipe(NamedTuple):
    """Say what a model is: its size, layers, the entries of its hash, how they are split, and its epochs."""

    size: str
    num_hidden_layers: int
    hash_width: int
    split: str
    whole_token_width: int
    num_epochs: int


RECIPES = {
    "pocket": Recipe("tiny", 3, 3584, "96,512,1600", 1376, 4),
    "pocket-uno": Recipe("uno", 2, 1024, "proportional", 0, 6),
}


def get_config(recipe: str = "pocket") -> config_dict.ConfigDict:
    """Return the configuration of `eelbert distill` that trains `recipe`."""
    if recipe not in RECIPES:
        raise unknown("recipe of configs/pocket.py", recipe, RECIPES)
    chosen = RECIPES[recipe]
    config = load_config(f"configs/distill.py:embedding,size={chosen.size},hash_width={chosen.hash_width}")
    config.recipe = recipe
    config.model.num_hidden_layers = chosen.num_hidden_layers
    config.model.hash.split = chosen.split
    config.model.hash.whole_token_width = chosen.whole_token_width
    config.model.max_position_embeddings = 128
    config.max_length = 96
    config.num_epochs = chosen.num_epochs
    return config
