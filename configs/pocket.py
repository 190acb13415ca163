"""The released models, sentence encoders in int8: `pocket` of at most 1.2 MB, and `pocket-uno` of 0.4.

    make pocket            # embeds, trains, exports and scores both; docs/models.md has what came of it

A hash of many entries, projected, is where their bytes are. Of its entries few hash single letters, of which
there are few, and many the token as a whole, which tells words apart as a table does.
"""

from ml_collections import config_dict

from eelbert_jax.config_files import load_config
from eelbert_jax.errors import unknown

RECIPES = {"pocket": ("tiny", (96, 672, 2304), 2048), "pocket-uno": ("uno", (40, 216, 352), 160)}
"""Size, entries that hash 1-, 2- and 3-grams, and entries that hash the token."""


def get_config(recipe: str = "pocket") -> config_dict.ConfigDict:
    """Return the configuration of `eelbert distill` that trains `recipe`."""
    if recipe not in RECIPES:
        raise unknown("recipe of configs/pocket.py", recipe, RECIPES)
    size, split, whole_token_width = RECIPES[recipe]
    width = sum(split) + whole_token_width
    config = load_config(f"configs/distill.py:embedding,size={size},hash_width={width}")
    config.recipe = recipe
    config.model.hash.split = ",".join(map(str, split))
    config.model.hash.whole_token_width = whole_token_width
    config.model.max_position_embeddings = 128
    config.max_length = 96
    config.num_epochs = 3 if recipe == "pocket" else 2
    return config
