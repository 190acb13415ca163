"""Pre-train a BERT or EELBERT as a masked language model on prepared rows.

    eelbert prepare  --config.source='DIR/*.txt.xz' --config.vocabulary=vocab.txt --workdir=runs/rows
    eelbert pretrain --config=configs/pretrain.py:tiny --config.data.rows=runs/rows --workdir=runs/tiny
    eelbert pretrain --config=configs/pretrain.py:base,embedding=table --config.data.rows=... --workdir=...

The recipe is a size (micro, uno, tiny, mini, base), optionally followed by `embedding=KIND` (table,
ngram_hash, random_hash, hash_initialized), `hash=PRESET` (default, reference), `hash_width=W` (entries of a
hashed vector, projected by a trained matrix) and `setting=NAME`. The setting `paper` is the default: 900k
steps, batch 256, length 128. The setting `small` is for a budget of about 20M tokens (20 minutes of two cores
for tiny): many small steps at a high rate, without which nothing beyond word frequencies is learned. Its
scores, time and machine stand in docs/results.md; of the paper's setting nothing has been run here.
"""

import dataclasses

from ml_collections import config_dict

from eelbert_jax.config_files import parse_recipe
from eelbert_jax.hashing.spec import PRESETS
from eelbert_jax.model.config import SIZES, sized

# Legal recipe words, the default first.
EMBEDDINGS = ("ngram_hash", "table", "random_hash", "hash_initialized")
SETTINGS = ("paper", "small")


def model_config(size: str, embedding: str, preset: str, hash_width: int | None) -> config_dict.ConfigDict:
    """Return every field of `BertConfig` as a config; see its docstring for units and legal values."""
    defaults = dataclasses.asdict(sized(size, embedding=embedding, hash_width=hash_width))
    # `split`: "proportional", or the widths d_1..d_N as "21,43,64".
    defaults["hash"] = PRESETS[preset].to_dict()
    defaults["hash"]["scale"] = config_dict.placeholder(float)
    # Empty: that of the rows' vocabulary. A number has to agree with it.
    defaults["vocab_size"] = config_dict.placeholder(int)
    # Empty: as a BERT has it, and for the hash no wider than the embedding.
    for name in ("embedding_size", "num_hidden_groups", "adapter_size", "hash_width"):
        if defaults[name] is None:
            defaults[name] = config_dict.placeholder(int)
    del defaults["num_labels"], defaults["sentence_size"]  # matters of fine-tuning and of distillation
    return config_dict.ConfigDict(defaults)


def get_config(recipe: str = "tiny") -> config_dict.ConfigDict:
    """Return the configuration of `recipe`."""
    size, options = parse_recipe(
        recipe,
        SIZES,
        {"embedding": EMBEDDINGS, "hash": tuple(PRESETS), "setting": SETTINGS},
        numbers=("hash_width",),
    )
    config = config_dict.ConfigDict()
    config.recipe = recipe  # a label; change sizes under `model`
    config.seed = 0  # of initialization, masking, dropout and the order of rows
    config.total_steps = 900_000  # optimizer updates
    config.batch_size = 256  # rows an update, over all devices
    # Largest number of rows that one device takes in a pass; empty: the whole of its share, on a CPU as many
    # as have 2,048 tokens. Gradients of the passes are added up, so that any machine reaches the batch.
    config.rows_per_device = config_dict.placeholder(int)
    # Optimizer steps in one call; empty: 1 on a CPU, else 10. The `_every_steps` must be multiples of it.
    config.steps_per_call = config_dict.placeholder(int)
    config.mesh = config_dict.ConfigDict()
    config.mesh.fsdp = 1  # devices that share one copy of the parameters; divides the devices and the width
    config.mesh.zero1 = False  # split the optimizer's slots over the other devices (ZeRO-1)
    config.mlm_probability = 0.15  # of L, rounded up: masked positions a row
    # A run's folder whose newest parameters to start from (fresh optimizer, step 0); empty: from scratch. A
    # checkpoint in the workdir itself always comes first.
    config.init_params_from = config_dict.placeholder(str)

    config.model = model_config(size, options["embedding"], options["hash"], options["hash_width"])

    config.data = config_dict.ConfigDict()
    config.data.rows = config_dict.placeholder(str)  # folder made by `eelbert prepare`; required
    config.data.verify = True  # process 0 checks the shards' checksums at the start, at about 1 GB/s
    # Calls whose rows are read and sent before the device asks for them; empty: 0 on a CPU, else 2.
    config.data.calls_ahead = config_dict.placeholder(int)
    config.data.eval_rows = config_dict.placeholder(int)  # held-out rows to evaluate; empty: all
    config.data.eval_batch_size = 256  # rows, over all devices

    config.opt = config_dict.ConfigDict()
    config.opt.learning_rate = 1e-4  # peak
    config.opt.warmup_steps = 10_000  # linear from 0
    config.opt.decay = "linear"  # of the rate after the warm-up, or "cosine"
    config.opt.final_percent = 0.0  # of the peak, the rate at total_steps
    config.opt.weight_decay = 0.01  # none on biases and LayerNorm
    config.opt.beta1 = 0.9
    config.opt.beta2 = 0.999
    config.opt.epsilon = 1e-6
    config.opt.max_grad_norm = 1.0  # clip the global norm here; 0: no clipping
    config.opt.layer_decay = 1.0  # a layer's rate is that of the one above times this; 1: one rate for all
    config.opt.trainable = ""  # pattern over parameter paths; empty: all are trained

    # So many steps in a row with a loss or gradient that is not finite end the run; fewer are skipped.
    config.max_skipped_steps = 10
    # End with the stacks of all threads when no step ends for so many seconds; 0: wait for ever.
    config.watchdog_seconds = 1800.0
    config.log_every_steps = 100
    config.eval_every_steps = 10_000
    config.checkpoint_every_steps = 10_000
    config.keep_checkpoints = 2  # newest that stay, at least 1
    config.keep_every_steps = config_dict.placeholder(int)  # also keep multiples of this; empty: none
    config.tensorboard = True

    if options["setting"] == "small":
        config.total_steps = 10_000
        config.batch_size = 16
        config.opt.learning_rate = 1e-3
        config.opt.warmup_steps = 500
        config.model.hidden_dropout_prob = 0.0
        config.model.attention_probs_dropout_prob = 0.0
        config.eval_every_steps = 1000
        config.checkpoint_every_steps = 1000
        config.data.eval_rows = 2048
    return config
