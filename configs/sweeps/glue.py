"""Fine-tune on GLUE more than once: Google's grid on one task, or several seeds on every task.

    eelbert sweep --config=configs/sweeps/glue.py:tiny,task=rte --config.pretrained=runs/tiny --workdir=...
    eelbert sweep --config=configs/sweeps/glue.py:tiny,grid=seeds --config.pretrained=runs/tiny --workdir=...
    eelbert sweep --config=configs/sweeps/glue.py:tiny,grid=seeds --config.sweep.models='runs/dropped/*' ...

The recipe is that of configs/glue.py with one word more: `grid=rates` (the default), the 20 cells that Google
searched for its miniatures (batch 8-128 x rate, 4 epochs each), or `grid=seeds`, every task whose files are
there, or a task=custom or task=tokens, with seeds 0, 1, ... at one setting, which
`--config.opt.learning_rate=...` and its like change, from one model or from several.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from eelbert_jax.config_files import load_config
from eelbert_jax.datasets.splits import find_glue_dir
from eelbert_jax.datasets.tasks import GLUE_TASKS, Task, find_task
from eelbert_jax.errors import UserError
from eelbert_jax.reporting.runs import split_paths

JOB = "finetune"
GRIDS = ("rates", "seeds")
BATCH_SIZES = (8, 16, 32, 64, 128)
LEARNING_RATES = (3e-4, 1e-4, 5e-5, 3e-5)
"""Source: the BERT miniatures of google-research/bert."""


def get_config(recipe: str = "tiny") -> config_dict.ConfigDict:
    """Return the fine-tuning configuration that the grid varies."""
    words = recipe.split(",")
    grids = [word.partition("=")[2] for word in words if word.startswith("grid=")] or ["rates"]
    if grids[-1] not in GRIDS:
        raise UserError(f"Unknown recipe word 'grid={grids[-1]}'; known: grid=rates, grid=seeds.")
    others = [word for word in words if not word.startswith("grid=")]
    config = load_config(f"configs/glue.py:{','.join(others)}")
    config.sweep = config_dict.ConfigDict()
    config.sweep.grid = grids[-1]
    config.sweep.num_seeds = 5  # grid=seeds: a task
    config.sweep.tasks = config_dict.placeholder(str)  # grid=seeds: by commas; empty: those with files
    # grid=seeds: what to start from, folders or patterns by commas; empty: `pretrained` alone.
    config.sweep.models = config_dict.placeholder(str)
    return config


def sweep(add: Callable[..., Any], config: config_dict.ConfigDict) -> None:
    """Add the cells of the grid that the recipe names."""
    if config.sweep.grid == "rates":
        for batch_size in BATCH_SIZES:
            for learning_rate in LEARNING_RATES:
                add(**{"config.batch_size": batch_size, "config.opt.learning_rate": learning_rate})
        return
    starts: list[dict[str, Any]] = [{}]
    if config.sweep.models is not None:
        starts = [
            {"config.pretrained": str(path)}
            for path in split_paths(config.sweep.models, "--config.sweep.models")
        ]
    for start in starts:
        for task in chosen_tasks(config):
            for seed in range(config.sweep.num_seeds):
                add(**start, **{"config.task": task, "config.seed": seed})


def chosen_tasks(config: config_dict.ConfigDict) -> list[str]:
    """Return the tasks that the config names, or the recipe's custom or tokens, or those with files."""
    if config.sweep.tasks is not None:
        return [find_task(name).name for name in config.sweep.tasks.split(",")]
    return tasks_with_files(config) if config.task in GLUE_TASKS else [config.task]


def tasks_with_files(config: config_dict.ConfigDict) -> list[str]:
    """Return the tasks that can be trained on; say which are left out.

    Without a folder TFDS fetches what there is, which is every official task.
    """
    glue_dir = find_glue_dir(config.data.glue_dir)
    trainable = [task for task in GLUE_TASKS.values() if task.dev_splits]
    if glue_dir is None:
        return [task.name for task in trainable if task.official]

    def has_files(task: Task) -> bool:
        files = {task.file_of(split) for split in ("train", *task.dev_splits)}
        return all((Path(glue_dir) / task.folder / file).is_file() for file in files)

    found = [task for task in trainable if has_files(task)]
    folders = {task.folder for task in found if task.official}  # a sample does not stand beside the whole
    chosen = [task.name for task in found if task.official or task.folder not in folders]
    left_out = [task.name for task in trainable if task.official and task not in found]
    if left_out:
        print(f"Left out, no train and dev files in {glue_dir}: {', '.join(left_out)}", file=sys.stderr)
    return chosen
