"""Loading: any folder gives one model; old runs stay readable; what is not there is named."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import eelbert_jax
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.hashing import spec as spec_module
from eelbert_jax.hashing.spec import PRESETS, HashSpec
from eelbert_jax.inference.load import load
from eelbert_jax.model import bert
from eelbert_jax.model import config as config_module
from eelbert_jax.model.config import BertConfig, identity
from support.models import CONFIG, NLI_LABELS, VOCABULARY, params_of, save, save_finetuned, save_pretrained


def test_a_pretrained_model(tmp_path):
    model = load(save_pretrained(tmp_path))
    assert (model.step, model.task, model.lowercase) == (7, None, True)
    assert not model.is_imported
    assert model.config == CONFIG
    assert model.max_length == 512
    expected = params_of(bert.BertForMaskedLM(CONFIG))
    jax.tree.map(np.testing.assert_array_equal, model.params, expected)


def test_positions_that_pre_training_never_saw_are_warned_of_once(tmp_path, capsys):
    """A record of no length is no reason to guess one."""
    long, short = "the file opens . a table", "the file"
    load(save_pretrained(tmp_path)).encode([long])
    assert not capsys.readouterr().err
    (tmp_path / "config.json").write_text('{"run": {"row_length": 6}}')
    model = load(tmp_path)
    assert model.trained_length == 6
    model.encode([short])
    assert not capsys.readouterr().err
    for ask in (model.encode, model.encode, lambda texts: model.fill_mask([f"{texts[0]} [MASK]"])):
        ask([short, long])
    assert (
        capsys.readouterr().err.count("was pre-trained on rows of 6 tokens, and some texts are longer") == 1
    )


@pytest.mark.parametrize(
    ("kind", "labels", "pairs"),
    [("classify", NLI_LABELS, True), ("regress", (), False), ("tag", "OX", False)],
)
def test_a_finetuned_model_knows_what_it_is_for(tmp_path, kind, labels, pairs):
    save_finetuned(tmp_path, "mine", kind, labels, pairs, mean=2.5, std=0.5)
    (tmp_path / "config.json").unlink()
    model = load(tmp_path)
    assert model.task == TaskRecord("mine", kind, tuple(labels), pairs, 48, 2.5, 0.5)
    assert model.config.num_labels == max(len(labels), 1)
    assert model.config.hidden_dropout_prob == 0.0
    assert ("pooler" in model.params["bert"]) == (kind != "tag")


@pytest.mark.parametrize(
    ("name", "labels", "second_column", "expected"),
    [
        ("rte", ["entailment", "not_entailment"], None, ("classify", True)),
        ("sst2", ["negative", "positive"], None, ("classify", False)),
        ("stsb", [], None, ("regress", True)),
        ("custom", ["x", "y"], None, ("classify", False)),
        ("custom", ["x", "y"], "question", ("classify", True)),
        ("tokens", ["O", "B-X"], None, ("tag", False)),
    ],
)
def test_an_old_record_is_completed_from_the_config(tmp_path, name, labels, second_column, expected):
    """The first version kept name and labels alone beside the checkpoint."""
    config = dataclasses.replace(CONFIG, num_labels=max(len(labels), 1))
    of_task = bert.BertForTokenClassification if name == "tokens" else bert.BertForSequenceClassification
    saved = {**identity(config, VOCABULARY, True), "task": {"name": name, "labels": labels}}
    settings = {"max_length": 600, "custom": {"second_text_column": second_column}}
    save(tmp_path, "best", params_of(of_task(config)), saved, settings)
    task = load(tmp_path).task
    assert (task.kind, task.reads_pairs) == expected
    assert task == TaskRecord(name, *(expected[0], tuple(labels), expected[1]), 512)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json does not say '(max_length|custom)'"):
        load(tmp_path)


@dataclasses.dataclass(frozen=True)
class LaterSpec(HashSpec):
    alphabet: str = "unicode"


@dataclasses.dataclass(frozen=True)
class LaterConfig(BertConfig):
    num_recursions: int = 1
    hash: HashSpec = dataclasses.field(default_factory=LaterSpec)


def test_a_new_field_changes_neither_identity_nor_fingerprint():
    for preset in PRESETS.values():
        assert LaterSpec(**dataclasses.asdict(preset)).fingerprint == preset.fingerprint
    assert LaterSpec(alphabet="ascii").fingerprint != HashSpec().fingerprint
    assert identity(LaterConfig(vocab_size=16), VOCABULARY, True) == identity(
        BertConfig(vocab_size=16), VOCABULARY, True
    )
    saved = identity(LaterConfig(num_recursions=2, hash=LaterSpec(alphabet="ascii")), VOCABULARY, True)
    assert saved["model"]["num_recursions"] == 2
    assert saved["model"]["hash"]["alphabet"] == "ascii"
    assert LaterConfig.from_identity({**saved["model"], "hash": None}).num_recursions == 2


def test_a_later_version_restores_an_old_checkpoint(tmp_path, monkeypatch):
    save_pretrained(tmp_path)
    before = load(tmp_path)
    monkeypatch.setattr("eelbert_jax.inference.load.BertConfig", LaterConfig)
    monkeypatch.setattr(config_module, "HashSpec", LaterSpec)
    after = load(tmp_path)
    assert after.config.num_recursions == 1
    assert after.config.hash.alphabet == "unicode"
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


def test_every_field_of_the_first_version_stands_in_the_identity():
    """Old checkpoints have them all: one that were left out would be a difference."""
    stored = identity(BertConfig(), VOCABULARY, True)["model"]
    assert set(stored) == {*config_module.FIRST_FIELDS, "hash"}
    assert set(stored["hash"]) == set(spec_module.FIRST_FIELDS)


def test_a_model_of_a_newer_version_is_named(tmp_path):
    saved = identity(CONFIG, VOCABULARY, True)
    saved["model"]["num_recursions"] = 4
    save(tmp_path, "checkpoints", params_of(bert.BertForMaskedLM(CONFIG)), saved, {})
    with pytest.raises(UserError, match=r"newer version wrote this model \(num_recursions\)"):
        load(tmp_path)


def test_more_tokens_than_positions_are_refused(tmp_path):
    save_finetuned(tmp_path, "sst2", "classify", ("no", "yes"), max_length=513)
    with pytest.raises(UserError, match="max_length=513, but the model has 512 positions"):
        load(tmp_path)


def test_a_vocabulary_that_was_exchanged_is_noticed(tmp_path):
    save_pretrained(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines[:-1], "other"]) + "\n")
    with pytest.raises(UserError, match="vocabulary: saved"):
        load(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match=f"No checkpoints at {tmp_path}"):
        load(tmp_path)


def test_what_a_model_is_not_for_is_said(tmp_path):
    pretrained = load(save_pretrained(tmp_path / "pretrained"))
    tuned = load(save_finetuned(tmp_path / "tuned", "sst2", "classify", ("no", "yes")))
    pretrained.require_pretrained()
    with pytest.raises(UserError, match="holds no fine-tuned model: run `eelbert finetune"):
        pretrained.classify(["the file"])
    for ask in (tuned.require_pretrained, lambda: tuned.fill_mask(["[MASK]"])):
        with pytest.raises(UserError, match="fine-tuned on sst2; a pre-trained one is needed"):
            ask()
    with pytest.raises(UserError, match=r"fine-tuned on sst2: ask it with classify\(\)"):
        tuned.tag(["the file"])


def test_the_package_loads_a_model_and_imports_jax_only_then(tmp_path):
    save_finetuned(tmp_path, "sst2", "classify", ("no", "yes"))
    assert eelbert_jax.load(str(tmp_path)).classify(["the file opens ."])[0].label in ("no", "yes")
    code = (
        "import sys, json, eelbert_jax; eelbert_jax.load;"
        "print(json.dumps([name for name in ('jax', 'numpy', 'flax') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
