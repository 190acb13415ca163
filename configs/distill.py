"""Train a small model on what a larger one, its teacher, says of texts without labels.

    eelbert embed --from=TEACHER ... --workdir=runs/vectors              # once; see configs/embed.py
    eelbert distill --config=configs/distill.py:embedding,size=tiny --config.data.vectors=runs/vectors \\
        --workdir=runs/tiny-distilled

    eelbert distill --config=configs/distill.py:minialbert --config.teacher.model=TEACHER \\
        --config.data.rows=runs/rows --workdir=runs/minialbert

The recipe is what is learned, then `size=SIZE`, `embedding=KIND` and `hash_width=W` (entries of a hashed
vector, projected by a trained matrix). `eelbert finetune --config.pretrained=DIR` takes up the encoder.

- `embedding`: a sentence encoder's vectors. On two cores UNO takes 5 minutes, EELBERT-tiny 8 and BERT-tiny
  10; their scores stand in docs/results.md.
- `minialbert`: a masked language model's hidden states, attention and predictions, beside masked tokens of
  rows by `eelbert prepare`. `setting=paper` (the default) is MiniALBERT's, to be run with rows of 256 and,
  for the published model, `embedding=table`; `setting=small` is that of configs/pretrain.py. A teacher
  without MLM head takes `--config.teacher.logits_weight=0`, one with another number of attention heads than
  the student `--config.teacher.attention_weight=0`.
"""

from collections.abc import Iterable

from ml_collections import config_dict

from eelbert_jax.config_files import load_config, parse_recipe
from eelbert_jax.model.config import EMBEDDINGS, SIZES

RECIPES = ("embedding", "minialbert")


def get_config(recipe: str = "embedding") -> config_dict.ConfigDict:
    """Return the configuration of `recipe`."""
    if recipe.split(",")[0] == "minialbert":
        return _minialbert(recipe)
    return _embedding(recipe)


def _first(default: str, names: Iterable[str]) -> tuple[str, ...]:
    return (default, *(name for name in names if name != default))


def _minialbert(recipe: str) -> config_dict.ConfigDict:
    """Return a pre-training's configuration with a teacher; the keys of the former stand there."""
    words = {
        "size": _first("minialbert", SIZES),
        "embedding": _first("ngram_hash", EMBEDDINGS),
        "setting": ("paper", "small"),
    }
    _, options = parse_recipe(recipe, RECIPES, words, numbers=("hash_width",))
    config = load_config(
        f"configs/pretrain.py:{options['size']},embedding={options['embedding']},setting={options['setting']}"
    )
    config.recipe = recipe  # a label
    config.model.hash_width = options["hash_width"]

    config.teacher = config_dict.ConfigDict()
    # A run's workdir or a folder in the Hugging Face layout, with the vocabulary of the rows; required.
    config.teacher.model = config_dict.placeholder(str)
    config.teacher.dtype = "float32"  # of its computation, or "bfloat16"
    # Weights of the terms; 0 leaves one out.
    config.teacher.mlm_weight = 1.0  # cross entropy of the masked tokens
    config.teacher.attention_weight = 3.0  # KL of attention probabilities; takes as many heads as the teacher
    config.teacher.hidden_weight = 3.0  # distance of hidden states, projected where the widths differ
    config.teacher.logits_weight = 5.0  # KL of the predictions; takes a teacher with an MLM head
    config.teacher.hidden_loss = "cosine"  # or "mse"
    # The teacher's layer for each layer (recursion) of the student: uniform, top, bottom, or numbers from 1
    # by commas, as "2,4,6".
    config.teacher.layers = "uniform"

    if options["setting"] == "paper":
        config.total_steps = 67_000  # about an epoch of Wikipedia in rows of 256
        config.batch_size = 192
        config.opt.learning_rate = 5e-4
        config.opt.warmup_steps = 5000
        config.opt.weight_decay = 1e-4
    return config


def _embedding(recipe: str) -> config_dict.ConfigDict:
    """Return the configuration of learning a sentence encoder's vectors."""
    words = {"size": _first("tiny", SIZES), "embedding": _first("ngram_hash", EMBEDDINGS)}
    _, options = parse_recipe(recipe, RECIPES, words, numbers=("hash_width",))
    config = config_dict.ConfigDict()
    config.recipe = recipe  # a label
    config.seed = 0  # of initialization and of the order of sentences
    config.model = load_config(
        f"configs/pretrain.py:{options['size']},embedding={options['embedding']}"
    ).model
    config.model.hash_width = options["hash_width"]
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    # Model whose encoder to start from: as `pretrained` of configs/glue.py; empty: from scratch.
    config.pretrained = config_dict.placeholder(str)

    config.data = config_dict.ConfigDict()
    config.data.vectors = config_dict.placeholder(str)  # folder made by `eelbert embed`; required
    config.vocabulary = config_dict.placeholder(str)  # the student's own, a file; empty: the teacher's
    config.max_unknown_percent = 5.0  # largest share of [UNK] of that vocabulary; legal: 0 to 100
    config.max_length = 26  # tokens; longer sentences are left out
    config.noise_percent = 0.0  # of the words to learn from, misspelt or left out; the vectors stay the same
    config.heldout_every = 256  # one of so many sentences is held out, for the cosine to the teacher

    # Weights of the terms; 0 leaves one out.
    config.loss = config_dict.ConfigDict()
    config.loss.distance_weight = 1.0  # squared distance to the teacher's vector
    config.loss.cosine_weight = 0.0  # 1 - cosine to it
    config.loss.similarity_weight = 0.0  # squared differences of the cosines of a pass's pairs

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
