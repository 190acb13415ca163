"""What should the bytes of a distilled sentence encoder go into? Entries, layers, widths; losses and noise.

    eelbert sweep --config=configs/sweeps/students.py --config.data.vectors=DIR --workdir=runs/students
    eelbert pareto --runs=runs/students --workdir=runs/students-pareto

A cell changes one thing of EELBERT-tiny with 1,024 entries (or of the recipe's, words as those of `embedding`
in configs/distill.py) and reads as many tokens. docs/models.md has what came of it.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import config_dict

from eelbert_jax.config_files import load_config

JOB = "distill"


def get_config(recipe: str = "hash_width=1024") -> config_dict.ConfigDict:
    """Return the configuration that the grid varies."""
    return load_config(f"configs/distill.py:embedding,{recipe}")


def sweep(add: Callable[..., Any]) -> None:
    """Add the cells of the grid."""
    add(**{"config.seed": 0})
    for hash_width in (512, 2048):
        add(**{"config.model.hash_width": hash_width})
    for num_layers in (1, 3, 4):
        add(**{"config.model.num_hidden_layers": num_layers})
    for num_layers in (2, 4):  # one layer, again and again
        add(**{"config.model.num_hidden_layers": num_layers, "config.model.num_hidden_groups": 1})
    for width in (256, 1024):
        add(**{"config.model.intermediate_size": width})
    add(
        **{
            "config.model.hidden_size": 256,
            "config.model.num_attention_heads": 4,
            "config.model.num_hidden_layers": 1,
            "config.model.intermediate_size": 256,
        }
    )
    add(**{"config.loss.cosine_weight": 1.0, "config.loss.distance_weight": 0.0})
    add(**{"config.loss.similarity_weight": 1.0})
    for percent in (5.0, 10.0):
        add(**{"config.noise_percent": percent})
