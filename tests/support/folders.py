"""Small models of random parameters as folders in the Hugging Face layout, and edits of them."""

import collections
import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.model import bert
from eelbert_jax.model.config import sized
from eelbert_jax.subwords import byte_level_bpe, parse_subwords
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

WORDS = ("the", "file", "table", "opens", "good", "bad", "##s", "##ing", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
HEADS = (bert.BertForMaskedLM, bert.BertForSequenceClassification, bert.BertForTokenClassification)
MODEL, CONFIG = "model.safetensors", "config.json"
ENGLISH = Path(__file__).parents[2] / "README.md"
"""A little real text."""


@functools.cache
def trained_bpe(size=400):
    """Return a RoBERTa's vocabulary and its merges, trained on a little text; special tokens as published."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(ENGLISH)], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def roberta_vocabulary():
    return byte_level_bpe(*trained_bpe())


@functools.cache
def xlnet_vocabulary(num_words=200):
    """Return an XLNet's vocabulary: rules and special tokens as published, characters and words of a text.

    The library's own trainer finds other pieces each time.
    """
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    space = {"replacement": "▁", "prepend_scheme": "always"}
    quotes = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
    normalizer = normalizers.Sequence([*quotes, normalizers.NFKD(), normalizers.StripAccents()])
    splitter = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space)])
    text = normalizer.normalize_str(ENGLISH.read_text())
    words = collections.Counter(word for word, _ in splitter.pre_tokenize_str(text))
    counts = collections.Counter("".join(words.elements())) + collections.Counter(
        dict(words.most_common(num_words))
    )
    pieces = [(piece, math.log(count / counts.total())) for piece, count in sorted(counts.items())]
    tokenizer = Tokenizer(models.Unigram([*((token, 0.0) for token in special), *pieces], unk_id=0))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.Metaspace(**space)
    tokenizer.add_special_tokens(special)
    return parse_subwords(tokenizer.to_str(), "tokenizer.json")


def micro(**changes):
    return sized("micro", **{"vocab_size": VOCABULARY.size, "embedding": "table", **changes})


def random_params(model):
    """Return parameters around the usual ones, biases away from 0, in the model's tree."""
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]

    def draw(path, leaf):
        return random.normal(path[-1].key == "scale", 0.1, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, shapes)


def write(path, model_class=bert.BertForMaskedLM, task=None, **changes):
    """Write a model of random parameters and return its config and parameters."""
    config = micro(**changes)
    params = random_params(model_class(config))
    write_folder(path, config, VOCABULARY, params, lowercase=False, task=task)
    return config, params


def change(folder, edit_state):
    """Rewrite the weights of a folder."""
    state = load_file(folder / MODEL)
    edit_state(state)
    save_file(state, folder / MODEL)


def edit(path, **changes):
    """Change fields of a JSON file; None removes one."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))
