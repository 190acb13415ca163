"""Texts with any number of labels: learned, saved, loaded and answered."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics

from eelbert_jax import cli
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.jobs.baseline import baseline
from eelbert_jax.jobs.finetune import finetune
from eelbert_jax.training.losses import classification_loss, multilabel_loss
from eelbert_jax.vocabulary import SPECIAL_TOKENS
from support.predictions import records, run

WORDS = {"song": "music", "actor": "cast", "story": "plot"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write a vocabulary, and texts whose words each bring a label."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "the", "film", *WORDS]) + "\n")
    subsets = [some for size in range(4) for some in itertools.combinations(WORDS, size)]
    texts = [" ".join(["the film", *some]) for some in subsets for _ in range(160)]
    cells = ["|".join(WORDS[word] for word in text.split() if word in WORDS) for text in texts]
    order = np.random.default_rng(0).permutation(len(texts))
    lines = [f"{texts[i]}\t{cells[i]}" for i in order]
    for split, rows in (("train", lines[100:]), ("test", lines[:100])):
        (folder / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return folder


def config_of(files, **changes):
    config = cli.load_config("configs/glue.py:micro,task=custom")
    config.vocabulary, config.custom.train = str(files / "vocab.txt"), str(files / "train.tsv")
    config.custom.dev_every, config.custom.label_separator = 5, "|"
    config.num_epochs, config.batch_size, config.opt.learning_rate = 5, 16, 5e-3
    config.model.hidden_dropout_prob = config.model.attention_probs_dropout_prob = 0.0
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def tuned(files, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tuned")
    return workdir, finetune(config_of(files, **{"custom.test": str(files / "test.tsv")}), workdir)


def test_the_loss_is_the_mean_binary_cross_entropy():
    logits = np.random.default_rng(0).normal(0, 2, (5, 3)).astype(np.float32)
    labels, weights = (logits > 0.5).astype(np.int32), np.array([1, 1, 0, 2, 1], np.float32)
    shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = weights @ -np.log(np.where(labels, shares, 1 - shares)).mean(axis=1)
    assert float(multilabel_loss(logits, jnp.asarray(labels), weights)) == pytest.approx(expected, rel=1e-5)
    one_class = classification_loss(logits, jnp.argmax(labels, -1), weights)
    assert abs(float(one_class) - expected) > 0.1
    assert optax.sigmoid_binary_cross_entropy(np.float32(200), 0) == 200  # no overflow


def test_it_learns_sets_and_its_scores_are_scikit_learns(tuned):
    workdir, result = tuned
    assert result.metrics["exact_match"] > 0.95 > 0.6 > result.majority["micro_f1"]
    lines = [json.loads(line) for line in (workdir / "predictions/test.jsonl").read_text().splitlines()]
    names = sorted(WORDS.values())
    truth, predictions = (
        np.array([[name in line[side] for name in names] for line in lines])
        for side in ("label", "prediction")
    )
    assert not truth.any(axis=1).all(), "some text has no label"
    for average in ("micro", "macro"):
        expected = sklearn.metrics.f1_score(truth, predictions, average=average)
        assert result.test_metrics[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)
    assert result.test_metrics["exact_match"] == sklearn.metrics.accuracy_score(truth, predictions)
    details = json.loads((workdir / "details.json").read_text())["test"]
    assert details["per_class"]["plot"]["support"] == truth[:, names.index("plot")].sum()


def test_answers(tuned, tmp_path, capsys):
    workdir, _ = tuned
    answers = load(workdir).classify(["the film song story", "the film"])
    assert [set(answer.labels) for answer in answers] == [{"music", "plot"}, set()]
    assert list(answers[0].probabilities) == sorted(WORDS.values())
    assert sum(answers[0].probabilities.values()) > 1.5  # a softmax would give 1
    texts = ("--text=the film actor", f"--checkpoint={workdir}")
    [found] = records(capsys, *texts)
    assert found["labels"] == ["cast"]
    assert run(capsys, *texts).startswith(f"cast\t{found['probabilities']['cast']:.4f}\tthe film")
    assert run(capsys, "--text=the film", texts[1]) == "-\t-\tthe film\n"
    run(capsys, *texts, f"--output={tmp_path / 'answers.tsv'}")
    header, row = (tmp_path / "answers.tsv").read_text().splitlines()
    assert dict(zip(header.split("\t"), row.split("\t"), strict=True))["labels"] == '["cast"]'


def test_a_folder_keeps_what_the_head_is_for(tuned, tmp_path):
    model = load(tuned[0])
    options = dict(lowercase=model.lowercase, task=model.task)
    write_folder(tmp_path, model.config, model.vocabulary, model.params, **options)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert load(tmp_path).classify(["the film song"]) == model.classify(["the film song"])


def test_one_class_and_many_are_told_apart(tuned, files, tmp_path):
    """The heads have one shape: a softmax over independent decisions would answer without a word."""
    single = tmp_path / "single.tsv"
    single.write_text("sentence\tlabel\n" + "".join(f"the {w}\t{label}\n" for w, label in WORDS.items()) * 2)
    changes = {"custom.train": str(single), "custom.label_separator": None, "custom.dev_every": 2}
    with pytest.raises(UserError, match="was fine-tuned to multilabel, and custom is a task to classify"):
        finetune(config_of(files, pretrained=str(tuned[0]), **changes), tmp_path / "run")


def test_balanced_is_refused(files, tmp_path):
    with pytest.raises(UserError, match="come in any number a text"):
        finetune(config_of(files, balanced=True), tmp_path)


def test_a_baseline_beside_it(files, tmp_path):
    [result] = baseline(config_of(files), tmp_path)
    assert result.metrics["micro_f1"] > 0.95 > result.majority["micro_f1"]
    assert "macro_f1" in json.loads((tmp_path / "details.json").read_text())["dev"]
