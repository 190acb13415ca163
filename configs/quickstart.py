"""See it all work: prepare the documentation installed on this machine, pre-train a UNO on it, question it.

    eelbert quickstart            # or: make quickstart

Needs no data and no accelerator. Two CPU cores take three to four minutes, most of it training; the expected
last lines stand in the README. Interrupted, the same command continues.
"""

from ml_collections import config_dict

from eelbert_jax.config_files import load_config


def get_config() -> config_dict.ConfigDict:
    """Return the configs of the two jobs, `prepare` and `pretrain`, and the questions asked at the end."""
    config = config_dict.ConfigDict()

    config.prepare = load_config("configs/prepare.py")
    config.prepare.source = "docs"
    config.prepare.train_vocabulary.size = 8192
    config.prepare.docs.max_mib = 48
    # With 32 tokens to look at instead of 128, attention finds a word's neighbours sooner: after 4M tokens
    # the held-out loss is 5.44 instead of 5.61, and a step is faster.
    config.prepare.row_length = 32
    config.prepare.held_out.fraction = 0.02

    config.pretrain = load_config("configs/pretrain.py:uno,setting=small")
    config.pretrain.total_steps = 4000
    config.pretrain.batch_size = 64
    config.pretrain.opt.learning_rate = 2e-3
    config.pretrain.opt.warmup_steps = 100
    config.pretrain.eval_every_steps = 500
    config.pretrain.checkpoint_every_steps = 1000
    config.pretrain.log_every_steps = 50
    config.pretrain.tensorboard = False

    config.neighbours_of = ("running", "functions", "encoded", "pretraining")  # any strings
    config.num_neighbours = 6  # nearest tokens shown of each
    config.sentences = (  # each with one or more [MASK]; long ones, for it has seen no short rows
        "This function can [MASK] used to create a new instance of the class, with the same arguments "
        "as the constructor.",
        "The return value is True [MASK] the file exists, and False otherwise. If the path is a symbolic "
        "link, it is followed.",
        "Open the file for reading and return a file [MASK]. The mode argument is optional and defaults "
        "to reading text.",
    )
    config.compared = (  # the first with each of the others
        "A man plays a guitar.",
        "Someone makes music.",
        "The return value is True if the file exists.",
    )
    config.num_guesses = 5  # most probable tokens shown for each [MASK]
    return config
