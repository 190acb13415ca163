"""What a job can refuse without its data or its model it refuses before it reads them."""

import importlib

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import save_vocabulary
from support.models import VOCABULARY, save_pretrained


class Begun(Exception):
    """The long part of a job has begun."""


LONG_PARTS = {
    "baseline": ["jobs.baseline.read_splits"],
    "distill": ["jobs.distill.Vectors.open"],
    "drop_layers": ["jobs.drop_layers.load"],
    "embed": ["datasets.sentences.find_units"],
    "evaluate": ["jobs.evaluate.read_splits", "inference.suite.load_examples"],
    "finetune": ["jobs.finetune.load_data"],
    "predict": ["jobs.predict.load"],
    "pretrain": ["corpus.rows.Rows.verify"],
    "search": ["jobs.search.load"],
}


@pytest.fixture(scope="module")
def words(tmp_path_factory, rows_dir):
    """Return the words of every job that lead to its long part."""
    folder = tmp_path_factory.mktemp("jobs")
    save_vocabulary(VOCABULARY, folder / "vocab.txt")
    model = save_pretrained(folder / "model")
    workdir = f"--workdir={folder / 'run'}"
    return {
        "baseline": [workdir, "--config=configs/glue.py:tiny,task=rte"],
        "distill": [workdir, "--config=configs/distill.py:embedding,size=micro", "--config.data.vectors=v"],
        "drop_layers": [workdir, f"--from={model}", "--strategy=top", "--num_layers=1"],
        "embed": [workdir, f"--from={model}", "--config.source=*.txt", "--config.max_length=16"],
        "evaluate": [f"--from={model}"],
        "finetune": [
            *(workdir, "--config=configs/glue.py:micro,task=rte"),
            f"--config.vocabulary={folder / 'vocab.txt'}",
        ],
        "predict": [f"--checkpoint={model}", "--text=the"],
        "pretrain": [
            *(workdir, "--config=configs/pretrain.py:micro,setting=small"),
            f"--config.data.rows={rows_dir}",
        ],
        "search": [f"--in={folder}", "the"],
    }


def run(job, words, monkeypatch):
    def begun(*_, **__):
        raise Begun

    for part in LONG_PARTS[job]:
        monkeypatch.setattr(f"eelbert_jax.{part}", begun)
    importlib.import_module(f"eelbert_jax.jobs.{job}").main(words)


@pytest.mark.parametrize("job", LONG_PARTS)
def test_the_long_part_begins_where_nothing_is_wrong(job, words, monkeypatch):
    with pytest.raises(Begun):
        run(job, words[job], monkeypatch)


@pytest.mark.parametrize(
    ("job", "wrong", "said"),
    [
        ("baseline", ["--kind=tfdif"], "--kind='tfdif' does not fit rte; take bag_of_words, tfidf or all"),
        ("distill", ["--config.opt.decay=cosin"], "opt.decay='cosin' must be one of linear, cosine"),
        ("distill", ["--config.pretrained=pockt"], "no model 'pockt': .*: pocket, pocket-uno"),
        ("distill", ["--config.vocabulary=nowhere.txt"], "Cannot read the vocabulary nowhere.txt"),
        ("drop_layers", ["--strategy=tpo"], "did you mean 'top'"),
        ("drop_layers", ["--tau=0.9"], "--tau goes with"),
        ("embed", ["--config.pooling=max"], "pooling='max' is not one of mean, cls"),
        ("embed", ["--config.dtype=float8"], "dtype.*float8"),
        ("embed", ["--config.glue_tasks=sst2,colla"], "Unknown task 'colla'; did you mean 'cola'"),
        ("evaluate", ["--from=pockt"], "no model 'pockt': .*: pocket, pocket-uno"),
        ("evaluate", ["--from=pockt", "--suite=sentences"], "no model 'pockt'"),
        ("evaluate", ["--suite=sentences", "--misspellings=no.txt"], "Cannot read no.txt"),
        ("evaluate", ["--misspellings=no.txt"], "--misspellings goes with --suite=sentences"),
        ("evaluate", ["--suite=sentense"], "Unknown suite 'sentense'; did you mean 'sentences'"),
        ("evaluate", ["--config=configs/glue.py:tiny,task=mnli"], "mnli has none"),
        ("finetune", ["--config.opt.learning_rate=0"], "opt.learning_rate must be positive"),
        ("finetune", ["--config.opt.warmup_percent=101"], "opt.warmup_steps=101 exceeds total_steps=100"),
        ("finetune", ["--config.teacher.model=pockt"], "no model 'pockt': .*: pocket, pocket-uno"),
        ("finetune", ["--config.teacher.texts=more.tsv"], "Texts without labels need a teacher"),
        ("finetune", ["--config.num_epochs=0"], "num_epochs=0 only evaluates"),
        ("predict", ["--top=0"], "--top=0 shows nothing"),
        ("predict", ["--text=", "--file=nowhere.txt"], "Cannot read nowhere.txt"),
        ("predict", ["--file=words.txt"], "--text and --file both name texts"),
        ("predict", ["--embed", "--fill_mask"], "ask for two things"),
        ("pretrain", ["--config.opt.decay=cosin"], "opt.decay='cosin' must be one of linear, cosine"),
        ("pretrain", ["--config.opt.warmup_steps=10000000"], "lower the warm-up"),
        ("search", ["--top=0"], "--top=0 shows nothing"),
        ("search", ["--in=nowhere"], "no folder nowhere"),
    ],
)
def test_what_is_wrong_is_said_before(job, wrong, said, words, monkeypatch):
    more = ["--config.num_epochs=100"] if "warmup_percent" in wrong[0] else []
    with pytest.raises(UserError, match=said):
        run(job, [*words[job], *more, *wrong], monkeypatch)


def test_a_folder_with_a_model_is_refused_before_another_is_loaded(words, tmp_path, monkeypatch):
    save_pretrained(tmp_path / "there")
    with pytest.raises(UserError, match="already holds"):
        run("drop_layers", [*words["drop_layers"], f"--workdir={tmp_path / 'there'}"], monkeypatch)
