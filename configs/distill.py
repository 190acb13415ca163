"""Train a small model on what a larger one, its teacher, says of texts without labels.

    eelbert embed --from=TEACHER ... --workdir=runs/vectors              # once; see configs/embed.py
    eelbert distill --config=configs/distill.py:embedding,size=tiny --config.data.vectors=runs/vectors \\
        --workdir=runs/tiny-distilled

The recipe is what is learned, `embedding` (a sentence encoder's vectors), then `size=SIZE`, `embedding=KIND`
and `hash_width=W` (entries of a hashed vector, projected by a trained matrix). On two cores UNO takes 5
minutes, EELBERT-tiny 8 and BERT-tiny 10; their scores stand in docs/results.md. `eelbert finetune
--config.pretrained=runs/tiny-distilled` takes such an encoder up.
"""

from ml_collections import config_dict

from eelbert_jax.config_files import load_config, parse_recipe
from eelbert_jax.model.config import EMBEDDINGS, SIZES

RECIPES = ("embedding",)


def get_config(recipe: str = "embedding") -> config_dict.ConfigDict:
    """Return the configuration of `recipe`."""
    kinds = ("ngram_hash", *(kind for kind in EMBEDDINGS if kind != "ngram_hash"))
    sizes = ("tiny", *(size for size in SIZES if size != "tiny"))
    _, options = parse_recipe(recipe, RECIPES, {"size": sizes, "embedding": kinds}, numbers=("hash_width",))
    config = config_dict.ConfigDict()
    config.recipe = recipe  # a label
    config.seed = 0  # of initialization and of the order of sentences
    config.model = load_config(
        f"configs/pretrain.py:{options['size']},embedding={options['embedding']}"
    ).model
    config.model.hash_width = options["hash_width"]
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    # A run's folder whose encoder to start from; empty: from scratch.
    config.pretrained = config_dict.placeholder(str)

    config.data = config_dict.ConfigDict()
    config.data.vectors = config_dict.placeholder(str)  # folder made by `eelbert embed`; required
    config.max_length = 26  # tokens; longer sentences are left out
    config.heldout_every = 256  # one of so many sentences is held out, for the cosine to the teacher

    config.num_epochs = 4
    config.batch_size = 128  # sentences, over all devices
    # Largest number of sentences that one device takes in a pass; empty: the whole of its share. Gradients of
    # the passes are added up, so that any machine reaches the batch.
    config.rows_per_device = config_dict.placeholder(int)
    config.mesh = config_dict.ConfigDict()
    config.mesh.fsdp = 1  # devices that share one copy of the parameters; divides the devices and the width
    config.mesh.zero1 = False  # split the optimizer's slots over the other devices (ZeRO-1)
    config.evals_per_epoch = 1  # evaluations on the held-out sentences, each with a checkpoint
    config.patience_evals = config_dict.placeholder(int)  # end after so many without a better one; empty: all
    config.log_every_steps = 100
    # So many steps in a row with a loss or gradient that is not finite end the run; fewer are skipped.
    config.max_skipped_steps = 10
    # End with the stacks of all threads when no step ends for so many seconds; 0: wait for ever.
    config.watchdog_seconds = 1800.0
    config.tensorboard = False

    config.opt = config_dict.ConfigDict()
    config.opt.learning_rate = 2e-3  # peak
    config.opt.warmup_percent = 5.0  # of all steps, linear from 0
    config.opt.decay = "cosine"  # of the rate after the warm-up, or "linear"
    config.opt.final_percent = 1.0  # of the peak, the rate at the end
    config.opt.weight_decay = 0.01
    config.opt.beta1 = 0.9
    config.opt.beta2 = 0.98
    config.opt.epsilon = 1e-6
    config.opt.max_grad_norm = 1.0
    config.opt.layer_decay = 1.0  # a layer's rate is that of the one above times this; 1: one rate for all
    config.opt.trainable = ""  # pattern over parameter paths; empty: all are trained
    return config
