"""Fine-tuning on small tables made here: learning, resuming, regression, refusing."""

import dataclasses
import itertools
import json
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.splits import configured_task
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.jobs.finetune import finetune, model_record, set_up, starting_model
from eelbert_jax.jobs.fitting import encoder_start
from eelbert_jax.model import bert
from eelbert_jax.model.config import bert_config
from eelbert_jax.objectives.classify import Classify, Degenerate
from eelbert_jax.record import Result
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.writer import read_metrics
from eelbert_jax.vocabulary import SPECIAL_TOKENS, load_vocabulary
from support import folders
from support.models import CONFIG, params_of
from support.workdirs import cut_at

GOOD, BAD = ("fine", "lovely", "great", "warm"), ("awful", "dull", "poor", "cold")
THINGS = ("film", "book", "meal", "song", "day")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> dict[str, str]:
    """Write a vocabulary, and reviews whose label one word decides, as classes and as numbers."""
    folder = tmp_path_factory.mktemp("tables")
    words = (*SPECIAL_TOKENS, "a", "the", "was", "very", *GOOD, *BAD, *THINGS)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    texts = [
        (f"the {thing} was {very}{word}", label)
        for thing, very, (word, label) in itertools.product(
            THINGS, ("", "very ", "very very "), [(w, "good") for w in GOOD] + [(w, "bad") for w in BAD]
        )
    ]
    order = np.random.default_rng(0).permutation(len(texts))
    rows = [texts[i] for i in order] * 4
    for name, label_of in (("classes", str), ("numbers", {"good": 4.5, "bad": 0.5}.get)):
        lines = "".join(f"{text}\t{label_of(label)}\n" for text, label in rows)
        (folder / f"{name}.tsv").write_text("sentence\tlabel\n" + lines)
    return {path.stem: str(path) for path in folder.iterdir()}


def small(tables: dict[str, str], kind: str = "classes", embedding: str = "ngram_hash", **changes):
    config = cli.load_config(f"configs/glue.py:micro,task=custom,embedding={embedding}")
    config.vocabulary = tables["vocab"]
    config.custom.train = tables[kind]
    config.custom.dev_every = 4
    config.custom.regression = kind == "numbers"
    config.num_epochs = 4
    config.batch_size = 16
    config.log_every_steps = 1
    config.opt.learning_rate = 5e-3
    config.update_from_flattened_dict(changes)
    return config


def test_it_learns_what_one_word_decides(tables, tmp_path):
    result = finetune(small(tables), tmp_path)
    assert result.metrics["accuracy"] > 0.95 > 0.6 > result.majority["accuracy"]
    assert result.model.name == "EELBERT-micro (scratch)"
    assert result.num_examples == {"train": 360, "dev": 120}
    assert not result.degenerate
    assert not result.official
    assert Result.read(tmp_path / "result.json") == result


def test_a_hash_initialized_table_starts_from_the_hash(tables, tmp_path):
    """From scratch: a table that no one had set would be NaN, and no step of it sound."""
    result = finetune(small(tables, embedding="hash_initialized"), tmp_path)
    assert result.metrics["accuracy"] > 0.95
    assert all(record.get("skipped_steps", 0) == 0 for record in read_metrics(tmp_path / "metrics.jsonl"))


def test_a_finished_run_is_left_as_it_is(tables, tmp_path, monkeypatch):
    first = finetune(small(tables, num_epochs=1), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(Classify, "evaluate", lambda *_: pytest.fail("evaluated again"))
    again = finetune(small(tables, num_epochs=1), tmp_path)
    assert dataclasses.replace(again, seconds=first.seconds) == first
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_passes_and_devices_do_not_change_what_is_learned(tables, tmp_path):
    """Without dropout four passes over a batch are one, up to the order of float32 sums."""
    still = {"num_epochs": 1, "model.hidden_dropout_prob": 0.0, "model.attention_probs_dropout_prob": 0.0}
    finetune(small(tables, **still), tmp_path / "whole")
    finetune(small(tables, **still, rows_per_device=4), tmp_path / "passes")
    whole, passes = (
        [r["train_loss"] for r in read_metrics(tmp_path / name / "metrics.jsonl") if "train_loss" in r]
        for name in ("whole", "passes")
    )
    np.testing.assert_allclose(whole, passes, rtol=1e-4)


def test_it_ends_early_where_nothing_gets_better(tables, tmp_path):
    config = small(tables, num_epochs=4, patience_evals=1, **{"opt.learning_rate": 1e-12})
    result = finetune(config, tmp_path)
    [best, last] = [
        record["step"] for record in read_metrics(tmp_path / "metrics.jsonl") if record.get("dev_accuracy")
    ][-2:]
    assert result.best_step == best < last < result.total_steps
    again = finetune(config, tmp_path)
    assert again.metrics == result.metrics


@pytest.mark.parametrize("trainable", ["classifier|pooler"])
def test_only_what_is_trainable_is_trained(tables, tmp_path, trainable, capsys):
    finetune(small(tables, num_epochs=1, **{"opt.trainable": trainable}), tmp_path / "frozen")
    said = capsys.readouterr().out
    finetune(small(tables, num_epochs=1, **{"opt.learning_rate": 1e-30}), tmp_path / "start")
    start, frozen = (load(tmp_path / name).params for name in ("start", "frozen"))
    distances = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start, frozen)
    assert max(jax.tree.leaves(distances["bert"]["encoder"])) < 1e-25  # what the rate of `start` moves
    assert distances["classifier"]["kernel"] > 1e-3
    heads = [frozen["classifier"], frozen["bert"]["pooler"]]
    count = sum(leaf.size for leaf in jax.tree.leaves(heads))
    assert f"Training {count:,} of " in said
    with pytest.raises(UserError, match=r"'adapter' is in no parameter's path.*without adapters"):
        finetune(small(tables, **{"opt.trainable": "adapter|classifier"}), tmp_path / "none")


def test_adapters_are_not_asked_of_a_checkpoint_without(tmp_path):
    folders.write(tmp_path)
    config = cli.load_config("configs/glue.py:minialbert,task=rte")
    config.pretrained = str(tmp_path)
    with pytest.raises(UserError, match=r"adapter_size=48 asks for adapters, and .* has none"):
        starting_model(config)
    config.model.adapter_size = None
    assert starting_model(config)[0].adapter_size is None


def test_lower_layers_move_less_with_layer_decay(tables, tmp_path):
    finetune(small(tables, num_epochs=1, **{"opt.learning_rate": 1e-30}), tmp_path / "start")
    finetune(small(tables, num_epochs=1, **{"opt.layer_decay": 1e-6}), tmp_path / "decayed")
    start, decayed = (load(tmp_path / name).params for name in ("start", "decayed"))
    distances = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), start, decayed)
    assert max(jax.tree.leaves(distances["bert"]["encoder"])) < 1e-4
    assert max(jax.tree.leaves(distances["classifier"])) > 1e-3


def test_a_vocabulary_that_does_not_fit_is_refused(tables, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "x"]))
    with pytest.raises(UserError, match=r"100\.0 % of the text's tokens are \[UNK\]"):
        set_up(small(tables, vocabulary=str(tmp_path / "vocab.txt")))


def test_balanced_classes_count_alike(tables):
    objective, *_ = set_up(small(tables, balanced=True, **{"custom.labels": "bad,good"}))
    counts = np.bincount(objective.data.train.labels)
    np.testing.assert_allclose(objective.class_weights * counts, counts.sum() / 2)
    with pytest.raises(UserError, match="numbers"):
        set_up(small(tables, "numbers", balanced=True))


def test_a_test_file_is_scored_once_with_the_best_step(tables, tmp_path):
    lines = Path(tables["classes"]).read_text().splitlines()
    (tmp_path / "test.tsv").write_text("\n".join([lines[0], *lines[1:51]]) + "\n")
    config = small(tables, **{"custom.test": str(tmp_path / "test.tsv")})
    result = finetune(config, tmp_path / "run")
    predictions = [
        json.loads(line) for line in (tmp_path / "run/predictions/test.jsonl").read_text().splitlines()
    ]
    assert [found["label"] for found in predictions] == [line.split("\t")[1] for line in lines[1:51]]
    right = [found["label"] == found["prediction"] for found in predictions]
    assert result.test_metrics["accuracy"] == np.mean(right)
    assert result.num_examples["test"] == 50
    details = json.loads((tmp_path / "run/details.json").read_text())
    assert np.trace(details["test"]["confusion"]) == sum(right)
    assert not any(
        "test" in name for record in read_metrics(tmp_path / "run/metrics.jsonl") for name in record
    )


def test_a_fine_tuned_model_is_evaluated_alone_and_trained_on(tables, tmp_path, capsys):
    first = finetune(small(tables, num_epochs=2), tmp_path / "first")
    alone = finetune(small(tables, num_epochs=0, pretrained=str(tmp_path / "first")), tmp_path / "alone")
    assert alone.metrics == first.metrics
    assert (alone.best_step, alone.total_steps) == (0, 0)
    spoilt = {"pretrained": str(tmp_path / "first"), "num_epochs": 1, "opt.learning_rate": 1.0}
    kept = finetune(small(tables, **spoilt), tmp_path / "spoilt")
    assert kept.final_metrics["accuracy"] < first.metrics["accuracy"]
    assert (kept.best_step, kept.metrics) == (0, first.metrics)
    chex.assert_trees_all_equal(load(tmp_path / "spoilt").params, load(tmp_path / "first").params)
    assert "No step scored above the model that the run started from" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"num_epochs=0 only evaluates"):
        finetune(small(tables, num_epochs=0), tmp_path / "nothing")
    other = {"custom.labels": "good,bad", "pretrained": str(tmp_path / "first")}
    with pytest.raises(UserError, match="another order"):
        finetune(small(tables, **other), tmp_path / "other")
    config = small(tables, **other, new_head=True)  # as for another task
    objective, pretrained, _ = set_up(config)
    assert objective.record.labels == ("good", "bad")
    like = jax.eval_shape(objective.init, jax.random.key(0))
    start = encoder_start(config, objective, pretrained)
    chex.assert_trees_all_equal(start.params(like), {"bert": load(tmp_path / "first").params["bert"]})
    assert not start.is_candidate  # its classifier is new


def test_a_length_beyond_the_positions_is_refused_at_the_start(tables, tmp_path):
    with pytest.raises(UserError, match="max_length=600"):
        finetune(small(tables, max_length=600), tmp_path)


def test_a_length_beyond_the_pre_trained_rows_is_warned_of_and_remembered(tables, tmp_path, capsys):
    vocabulary = load_vocabulary(tables["vocab"])
    config = dataclasses.replace(CONFIG, vocab_size=vocabulary.size)
    write_folder(
        tmp_path / "start",
        config,
        vocabulary,
        params_of(bert.BertForMaskedLM(config)),
        lowercase=True,
        trained_length=6,
    )
    changes = {"num_epochs": 1, "pretrained": str(tmp_path / "start")}
    set_up(small(tables, **changes, max_length=6))
    assert "max_length" not in capsys.readouterr().err
    finetune(small(tables, **changes, max_length=9), tmp_path / "long")
    long = [line for line in Path(tables["classes"]).read_text().splitlines() if "very" in line]
    said = capsys.readouterr().err
    assert "max_length=9, but" in said
    assert f"rows of 6 tokens: {len(long)} examples reach" in said
    assert load(tmp_path / "long").trained_length == 6
    load(tmp_path / "long").classify(["the film was very very great"])
    assert "rows of 6 tokens, and some texts are longer" in capsys.readouterr().err


def test_a_regression_learns_numbers(tables, tmp_path):
    result = finetune(small(tables, "numbers"), tmp_path)
    assert result.metrics["pearson"] > 0.9


def test_a_regression_does_not_spend_its_steps_on_the_mean(tables, tmp_path):
    """Labels far from 0 are learned as well, and answers are in their unit."""
    lines = Path(tables["numbers"]).read_text().splitlines()
    shifted = [lines[0]]
    for line in lines[1:]:
        text, label = line.rsplit("\t", 1)
        shifted.append(f"{text}\t{1000 + 10 * float(label)}")
    table = tmp_path / "shifted.tsv"
    table.write_text("\n".join(shifted) + "\n")
    result = finetune(small(tables, "numbers", **{"custom.train": str(table)}), tmp_path / "run")
    assert result.metrics["pearson"] > 0.9
    model = load(tmp_path / "run")
    scores = [answer.score for answer in model.classify([line.rsplit("\t", 1)[0] for line in shifted[1:40]])]
    truth = [float(line.rsplit("\t", 1)[1]) for line in shifted[1:40]]
    assert np.corrcoef(scores, truth)[0, 1] > 0.9
    assert abs(np.mean(scores) - np.mean(truth)) < 0.5 * np.std(truth)


def test_resume_is_bitwise_and_keeps_the_best_step(tables, tmp_path):
    config = small(tables, num_epochs=3)
    whole = finetune(config, tmp_path / "whole")
    with cut_at(50):
        finetune(config, tmp_path / "parts")
    parts = finetune(config, tmp_path / "parts")
    assert dataclasses.replace(parts, seconds=whole.seconds) == whole
    curves = [
        [
            (r["step"], r["train_loss"])
            for r in read_metrics(tmp_path / name / "metrics.jsonl")
            if "train_loss" in r
        ]
        for name in ("whole", "parts")
    ]
    assert curves[0] == curves[1]
    steps = []
    for name in ("whole", "parts"):
        with Checkpoints(tmp_path / name / "best", create=False) as best:
            steps.append(best.latest_step())
    assert steps == [whole.best_step] * 2


def test_a_degenerate_run_is_said_or_stopped(tables, tmp_path, capsys):
    still = {"opt.learning_rate": 1e-12, "num_epochs": 1}
    result = finetune(small(tables, **still), tmp_path / "say")
    assert result.degenerate
    assert "every development example gets the same class" in capsys.readouterr().out
    with pytest.raises(Degenerate, match=r"config\.on_degenerate=say"):
        finetune(small(tables, **still, on_degenerate="stop"), tmp_path / "stop")


@pytest.mark.parametrize("flags", [(0, 0, 1), (0, 1, 0)])
def test_degenerate_tells_of_the_best_step_and_not_of_the_last(tables, tmp_path, monkeypatch, flags):
    # At steps 0, the best and the last one, and once more with the best: its predictions are saved.
    scores, collapsed = iter((0.0, 0.9, 0.5, 0.9)), iter(flags)
    monkeypatch.setattr(Classify, "scores", lambda *_: {"accuracy": next(scores), "f1": 0.0})
    monkeypatch.setattr(Classify, "is_degenerate", lambda *_: bool(next(collapsed)))
    monkeypatch.setattr(Classify, "majority_scores", lambda _: {"accuracy": 0.5, "f1": 0.0})
    result = finetune(small(tables, num_epochs=2), tmp_path)
    assert result.best_step < result.total_steps
    assert result.degenerate == bool(flags[1])
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert tuple(record["degenerate"] for record in records if "degenerate" in record) == flags


def test_a_table_without_a_header_line_has_its_columns_named(tables, tmp_path):
    bare = tmp_path / "bare.tsv"
    bare.write_text(Path(tables["classes"]).read_text().split("\n", 1)[1])
    columns = {"custom.columns": "sentence,label", "custom.train": str(bare)}
    task = configured_task(small(tables, **columns).to_dict())
    with_header = configured_task(small(tables).to_dict())
    texts, expected = (load_examples(one, "train", glue_dir=None).first for one in (task, with_header))
    assert texts == expected


def test_other_settings_in_the_same_workdir_are_refused(tables, tmp_path):
    """Else the result would tell of a rate that no step was trained with."""
    finetune(small(tables, num_epochs=1), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(UserError, match=r"settings: opt\.learning_rate: 0\.005, now 1e-07; seed: 0, now 5"):
        finetune(small(tables, num_epochs=1, seed=5, **{"opt.learning_rate": 1e-7}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    finetune(small(tables, num_epochs=1, log_every_steps=7), tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocabulary": None}, r"--config\.vocabulary=FILE"),
        ({"pretrained": "/nowhere"}, "/nowhere"),
        ({"on_degenerate": "ignore"}, "is not one of say, stop"),
        ({"custom.train": "/nowhere.tsv"}, "/nowhere.tsv"),
        ({"custom.label_column": "stars"}, "stars"),
        ({"custom.dev_every": 0}, "dev"),
        ({"patience_evals": 0}, "patience_evals must be at least 1 or empty, got 0"),
        ({"max_length": 513}, "max_length=513, but the model has 512 positions; set --config.max_length=512"),
    ],
)
def test_bad_input_is_one_clear_error(tables, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        finetune(small(tables, **changes), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("uno", "UNO-EELBERT (scratch)"),
        ("tiny,embedding=table", "BERT-tiny (scratch)"),
        ("mini,embedding=random_hash", "BERT-mini (random_hash) (scratch)"),
    ],
)
def test_names_of_models(recipe, name):
    config = cli.load_config(f"configs/glue.py:{recipe}")
    assert model_record(bert_config(config.model, 30522), None, 0).name == name


def test_real_task_from_the_folder(data_dir: Path, vocabulary_file: Path, tmp_path, monkeypatch):
    monkeypatch.setenv("EELBERT_DATA", str(data_dir))
    config = cli.load_config("configs/glue.py:micro,task=wnli")
    config.vocabulary = str(vocabulary_file)
    config.num_epochs = 1
    result = finetune(config, tmp_path)
    assert result.num_examples == {"train": 635, "dev": 71}
    assert result.official
    assert 0.0 <= result.metrics["accuracy"] <= 1.0
