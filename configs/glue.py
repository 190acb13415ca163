"""Fine-tune on a GLUE task, or on texts or words of your own, from a pre-trained checkpoint or from scratch.

    eelbert finetune --config=configs/glue.py:tiny,task=sst2 --config.pretrained=runs/tiny --workdir=runs/sst2
    eelbert finetune --config=configs/glue.py:tiny,task=rte --config.vocabulary=vocab.txt --workdir=runs/rte
    eelbert finetune --config=configs/glue.py:tiny,task=custom --config.custom.train=reviews.tsv ...
    eelbert finetune --config=configs/glue.py:tiny,task=tokens --config.tokens.train=train.txt ...
    eelbert finetune --config=configs/glue.py:tiny,task=rte --config.pretrained=bert-folder --workdir=runs/rte

The recipe is a size, optionally followed by `embedding=KIND` (for a model from scratch; a checkpoint brings
its own) and `task=NAME`. A checkpoint is the workdir of `eelbert pretrain`, or a BERT, DistilBERT, RoBERTa
or XLNet in a folder as transformers saves it (`config.json`, `model.safetensors`, `tokenizer_config.json`,
and `vocab.txt` or `tokenizer.json`).

The defaults are a cell of Google's grid for the miniatures (4 epochs, batch 8-128, rate {3e-4, 1e-4, 5e-5,
3e-5}); `configs/sweeps/glue.py` is the grid.
"""

from ml_collections import config_dict

from eelbert_jax.config_files import load_config, parse_recipe
from eelbert_jax.datasets.conll import TOKENS
from eelbert_jax.datasets.tasks import GLUE_TASKS
from eelbert_jax.model.config import SIZES

# Legal recipe words, the default first.
EMBEDDINGS = ("ngram_hash", "table", "random_hash", "hash_initialized")
TASKS = ("sst2", *(task for task in GLUE_TASKS if task != "sst2"), "custom", TOKENS)


def get_config(recipe: str = "tiny") -> config_dict.ConfigDict:
    """Return the configuration of `recipe`."""
    size, options = parse_recipe(recipe, SIZES, {"embedding": EMBEDDINGS, "task": TASKS})
    config = config_dict.ConfigDict()
    config.recipe = recipe  # a label
    config.task = options["task"]  # a GLUE task, or custom, or tokens
    config.task_name = config_dict.placeholder(str)  # of task=custom or tokens in reports; empty: its file
    config.seed = 0  # of the new head, dropout and the order of examples
    # A run's workdir, a released model's name, or a folder in the Hugging Face layout; empty: from
    # scratch.
    config.pretrained = config_dict.placeholder(str)
    # Of a fine-tuned checkpoint: take the encoder and leave its classifier, as for another task than its own
    # (intermediate-task training, Phang et al. 2018).
    config.new_head = False
    config.vocabulary = config_dict.placeholder(str)  # vocabulary file; for a model from scratch alone
    config.lowercase = True  # of a model from scratch: how its vocabulary was made
    # Largest share of [UNK] among the tokens of a split, in percent; legal: 0 to 100. More is a vocabulary of
    # other text, or of the other case.
    config.max_unknown_percent = 20.0
    # Has to be the checkpoint's; a folder in the Hugging Face layout brings its own sizes.
    config.size = size
    # Of a model from scratch; a checkpoint brings its own, but for the dropout and the computation type.
    config.model = load_config(f"configs/pretrain.py:{size},embedding={options['embedding']}").model

    config.num_epochs = 4  # 0: only evaluate, the fine-tuned model that `pretrained` names
    config.batch_size = 32  # examples, over all devices
    # Largest number of examples that one device takes in a pass; empty: the whole of its share. Gradients of
    # the passes are added up, so that any machine reaches the batch.
    config.rows_per_device = config_dict.placeholder(int)
    config.mesh = config_dict.ConfigDict()
    config.mesh.fsdp = 1  # devices that share one copy of the parameters; divides the devices and the width
    config.mesh.zero1 = False  # split the optimizer's slots over the other devices (ZeRO-1)
    config.max_length = 128  # tokens; what is longer is cut and counted
    # Of pairs: cross reads both texts in one row; bi reads each alone and compares their vectors, the means
    # of their states, by a cosine (numbers) or a classifier of both (Sentence-BERT).
    config.pair_encoder = "cross"
    config.metric = config_dict.placeholder(str)  # that selects the best step; empty: the task's first
    # Evaluations on the development set, each a candidate for the best step; the start is one too where none
    # of its parameters is new.
    config.evals_per_epoch = 1
    # End after so many evaluations without a better one; empty: go through all epochs.
    config.patience_evals = config_dict.placeholder(int)
    config.balanced = False  # weigh examples so that all classes count alike
    config.log_every_steps = 50
    # So many steps in a row with a loss or gradient that is not finite end the run; fewer are skipped.
    config.max_skipped_steps = 10
    # What to do when an evaluation predicts one class alone: say (and mark the result), or stop.
    config.on_degenerate = "say"
    # End with the stacks of all threads when no step ends for so many seconds; 0: wait for ever.
    config.watchdog_seconds = 1800.0
    config.tensorboard = False

    config.opt = config_dict.ConfigDict()
    config.opt.learning_rate = 3e-4  # peak
    config.opt.warmup_percent = 10.0  # of all steps, linear from 0
    config.opt.decay = "linear"  # of the rate after the warm-up, or "cosine"
    config.opt.final_percent = 0.0  # of the peak, the rate at the end
    config.opt.weight_decay = 0.01
    config.opt.beta1 = 0.9
    config.opt.beta2 = 0.999
    config.opt.epsilon = 1e-6
    config.opt.max_grad_norm = 1.0
    config.opt.layer_decay = 1.0  # a layer's rate is that of the one above times this; 1: one rate for all
    config.opt.trainable = ""  # pattern over parameter paths, as "classifier|pooler"; empty: all are trained

    # A fine-tuned model whose answers are learned beside the labels (knowledge distillation).
    config.teacher = config_dict.ConfigDict()
    config.teacher.model = config_dict.placeholder(str)  # its folder or workdir; empty: no teacher
    config.teacher.weight = 0.5  # share of the loss that is the distance to its answers, in [0, 1]
    config.teacher.temperature = 2.0  # of both softmaxes in that; classes alone
    # Of 1 - the cosine of the last states of [CLS], the student's projected where it is narrower.
    config.teacher.hidden_weight = 0.0
    config.teacher.texts = config_dict.placeholder(str)  # table of more texts, without labels; empty: none
    # Of their words of three letters and more, in percent, those that get an error each: a typing error, or
    # left out; legal: 0 to 100.
    config.teacher.noise_percent = 0.0

    config.data = config_dict.ConfigDict()
    config.data.glue_dir = config_dict.placeholder(str)  # GLUE folder; empty: $EELBERT_DATA/glue, else TFDS
    config.data.tfds_data_dir = config_dict.placeholder(str)  # where TFDS keeps glue/*; empty: its default

    # What to do with a row without a text or a label, or with one that is none: refuse, or skip and count.
    config.on_bad_record = "refuse"

    # task=custom: a table of your own (tsv, csv, jsonl or parquet).
    config.custom = config_dict.ConfigDict()
    config.custom.train = config_dict.placeholder(str)  # file
    config.custom.dev = config_dict.placeholder(str)  # file; or set dev_every
    config.custom.test = config_dict.placeholder(str)  # file with labels, scored once with the best step
    config.custom.dev_every = 0  # hold every so many rows of the training file out; 0: there is a dev file
    config.custom.columns = config_dict.placeholder(str)  # of files without a header line, all, by commas
    config.custom.text_column = "sentence"
    config.custom.second_text_column = config_dict.placeholder(str)  # of pairs; empty: single texts
    config.custom.label_column = "label"
    config.custom.labels = config_dict.placeholder(str)  # names in id order, by commas; empty: those of train
    # Between the labels of a cell where a text has any number of them, as ";"; empty: one label a text, or
    # of jsonl and parquet a list of any number.
    config.custom.label_separator = config_dict.placeholder(str)
    config.custom.regression = False  # the label is a number

    # task=tokens: words of your own with a tag each, one a line in columns, a blank line between sentences.
    config.tokens = config_dict.ConfigDict()
    config.tokens.train = config_dict.placeholder(str)  # file
    config.tokens.dev = config_dict.placeholder(str)  # file
    config.tokens.test = config_dict.placeholder(str)  # file with tags, scored once with the best step
    config.tokens.word_column = 0  # counted from 0, or from -1 for the last
    config.tokens.tag_column = -1  # likewise
    config.tokens.labels = config_dict.placeholder(str)  # tags in id order, by commas; empty: those of train
    return config
