"""Every config and recipe loads, every leaf can be overridden, every sweep's cell fits its config."""

from pathlib import Path

import pytest
from ml_collections import config_dict

from eelbert_jax import cli
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import PRESETS
from eelbert_jax.model.config import EMBEDDINGS, SIZES, bert_config
from eelbert_jax.sweeping import grid as cells
from eelbert_jax.training.optimizer import OptimizerConfig

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.py"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("setting", ["paper", "small"])
def test_every_recipe_describes_a_model(size, embedding, setting):
    config = cli.load_config(f"configs/pretrain.py:{size},embedding={embedding},setting={setting}")
    model = bert_config(config.model, 30522)
    assert model.embedding == embedding
    assert model.hidden_size == SIZES[size]["hidden_size"]
    OptimizerConfig(**config.opt)


def test_the_papers_setting_is_the_default():
    config = cli.load_config("configs/pretrain.py")
    assert (config.total_steps, config.batch_size, config.mlm_probability) == (900_000, 256, 0.15)
    assert (config.opt.learning_rate, config.opt.warmup_steps, config.opt.weight_decay) == (
        1e-4,
        10_000,
        0.01,
    )
    assert (config.model.embedding, config.model.hash.max_gram) == ("ngram_hash", 3)


def test_a_preset_names_a_hash_function():
    config = cli.load_config("configs/pretrain.py:tiny,hash=reference")
    assert bert_config(config.model, 30522).hash == PRESETS["reference"]


def test_the_hash_may_be_wider_than_the_embedding():
    model = cli.load_config("configs/pretrain.py:tiny,embedding=ngram_hash,hash_width=1024").model
    assert bert_config(model, 30522).hash_width == 1024
    words = ["--config=configs/pretrain.py:tiny", "--workdir=x", "--config.model.hash_width=512"]
    assert bert_config(cli.parse("pretrain", words).config.model, 30522).hash_width == 512
    assert bert_config(cli.load_config("configs/pretrain.py:tiny").model, 30522).hash_width is None


@pytest.mark.parametrize("recipe", ["pocket", "pocket-uno"])
def test_a_released_model_hashes_as_wide_as_its_parts(recipe):
    model = bert_config(cli.load_config(f"configs/pocket.py:{recipe}").model, 30522)
    assert sum(model.hash.widths(model.hash_width)) == model.hash_width
    with pytest.raises(UserError, match="recipe of configs/pocket"):
        cli.load_config("configs/pocket.py:poket")


def test_the_split_can_be_given_as_widths():
    words = ["--config=configs/pretrain.py:tiny", "--workdir=x", "--config.model.hash.split=21,43,64"]
    model = cli.parse("pretrain", words).config.model
    assert bert_config(model, 30522).hash.widths(128) == (21, 43, 64)


@pytest.mark.parametrize(
    "recipe",
    ["huge", "tiny,embedding=hash", "tiny,bf16", "tiny,setting=", "tiny,hash_width=0", "tiny,hash_width=2k"],
)
def test_unknown_recipe_words_are_named_with_the_legal_ones(recipe):
    with pytest.raises(UserError, match=r"Unknown recipe word .*: .*(tiny|table)"):
        cli.load_config(f"configs/pretrain.py:{recipe}")


def leaves(config: config_dict.ConfigDict, prefix: str = "") -> list[tuple[str, type]]:
    found = []
    for name in config:
        kind = config.get_type(name)
        if issubclass(kind, config_dict.ConfigDict):
            found += leaves(config[name], f"{prefix}{name}.")
        else:
            found.append((prefix + name, kind))
    return found


SAMPLES = {int: ("7", 7), float: ("0.5", 0.5), str: ("word", "word"), bool: ("false", False)}
SAMPLES[tuple] = ("('word', 'other')", ("word", "other"))


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_every_leaf_can_be_overridden(file):
    job = file.stem if file.stem in cli.JOBS else "pretrain"
    for name, kind in leaves(cli.load_config(file)):
        text, expected = SAMPLES[kind]
        words = [f"--config={file}", "--workdir=x", f"--config.{name}={text}"]
        value = cli.parse(job, words).config
        for part in name.split("."):
            value = value[part]
        assert value == expected, name


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_cell_of_a_sweep_fits_its_config(file):
    found = cells.plan("", [f"--config={file}", "--workdir=x"], "x")
    assert len(found) >= 3
    if found[0].job == "pretrain":
        seen = {bert_config(cell.config.model, 30522) for cell in found}
        assert len(seen) == len(found)
        for model in seen:
            model.hash.widths(model.hash_vector_width)
