"""`eelbert drop_layers`: drop, reload, fine-tune, drop again; the record and what it refuses."""

import dataclasses
import json

import numpy as np
import pytest

import eelbert_jax
from eelbert_jax.__main__ import main as door
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.jobs.finetune import main as finetune
from eelbert_jax.model import bert
from eelbert_jax.record import Dropped
from support.models import CONFIG, NLI_LABELS, VOCABULARY, params_of, save_finetuned, save_pretrained


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Four layers, as transformers would save them but for the hash."""
    folder = tmp_path_factory.mktemp("model") / "encoder"
    config = dataclasses.replace(CONFIG, num_hidden_layers=4)
    params = params_of(bert.BertForMaskedLM(config))
    write_folder(folder, config, VOCABULARY, params, lowercase=True)
    return folder


@pytest.fixture
def task(tmp_path):
    rows = [("the running runner", "good"), ("a table file", "bad"), ("the runner", "good"), ("table", "bad")]
    for split in ("train", "dev"):
        lines = "".join(f"{text}\t{label}\n" for text, label in rows * 8)
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n" + lines)
    files = [f"--config.custom.{split}={tmp_path / split}.tsv" for split in ("train", "dev")]
    return ["--config=configs/glue.py:tiny,task=custom", *files]


def drop(source, workdir, *words):
    return door(["drop_layers", f"--from={source}", f"--workdir={workdir}", *words])


def tune(task, source, workdir, num_epochs=1):
    options = ["--config.batch_size=8", "--config.max_length=16", f"--config.num_epochs={num_epochs}"]
    finetune([*task, *options, f"--config.pretrained={source}", f"--workdir={workdir}"])
    return json.loads((workdir / "result.json").read_text())


def test_a_smaller_model_is_reloaded_and_remembers(encoder, tmp_path, capsys):
    assert drop(encoder, tmp_path / "two", "--strategy=symmetric", "--num_layers=2") == 0
    assert "symmetric drops 2, 3 of 4 layers and keeps 1, 4" in capsys.readouterr().out
    model, whole = eelbert_jax.load(tmp_path / "two"), load(encoder)
    assert (model.config.num_hidden_layers, model.config.embedding) == (2, "ngram_hash")
    last = [each.params["bert"]["encoder"][f"layer_{i}"]["output"] for each, i in ((whole, 3), (model, 1))]
    np.testing.assert_array_equal(*(layer["dense"]["kernel"] for layer in last))
    assert Dropped.of(tmp_path / "two") == Dropped(str(encoder), 4, [1, 4], "symmetric", ["drop"])
    settings = json.loads((tmp_path / "two" / "config.json").read_text())
    assert (settings["num_hidden_layers"], settings["hidden_dropout_prob"]) == (2, 0.1)
    # Dropped from again, layers are still called by their first numbers.
    assert drop(tmp_path / "two", tmp_path / "one", "--strategy=bottom", "--num_layers=1") == 0
    record = Dropped(str(encoder), 4, [4], "bottom", ["drop", "drop"])
    assert (Dropped.of(tmp_path / "one"), record.num_dropped) == (record, 3)


@pytest.mark.slow
def test_tune_and_drop_in_turns(encoder, task, tmp_path):
    """The classifier goes along, and the record says in which order it was."""
    tune(task, encoder, tmp_path / "tuned")
    assert Dropped.of(tmp_path / "tuned") is None
    assert drop(tmp_path / "tuned", tmp_path / "cut", "--strategy=top", "--num_layers=1") == 0
    classifiers = [load(tmp_path / name).params["classifier"]["kernel"] for name in ("tuned", "cut")]
    np.testing.assert_array_equal(*classifiers)
    record = Dropped(str(encoder), 4, [1, 2, 3], "top", ["tune", "drop"])
    evaluated = tune(task, tmp_path / "cut", tmp_path / "evaluated", num_epochs=0)
    assert evaluated["dropped"] == dataclasses.asdict(record)
    tune(task, tmp_path / "cut", tmp_path / "again")
    assert drop(tmp_path / "again", tmp_path / "twice", "--strategy=bottom", "--num_layers=2") == 0
    assert Dropped.of(tmp_path / "twice") == Dropped(
        str(encoder), 4, [3], "bottom", ["tune", "drop", "tune", "drop"]
    )


def test_contribution_reads_a_development_set(encoder, task, tmp_path, capsys):
    words = ["--strategy=contribution", *task, "--config.max_length=16"]
    assert drop(encoder, tmp_path / "out", *words, "--tau=1.0") == 2
    cosines = [
        float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines() if "[CLS]" in line
    ]
    assert len(cosines) == 4
    second = sorted(cosines)[-2]
    assert drop(encoder, tmp_path / "out", *words, f"--tau={second - 1e-4}") == 0
    gone = [i for i, cosine in enumerate(cosines, start=1) if cosine >= second]
    assert sorted({1, 2, 3, 4} - set(Dropped.of(tmp_path / "out").kept_layers)) == gone


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--strategy=top", "--num_layers=4"], "4 layers cannot be dropped from 4"),
        (["--strategy=symmetric", "--num_layers=1"], "is odd"),
        (["--strategy=tpo", "--num_layers=1"], "did you mean 'top'"),
        (["--num_layers=1"], "add --from=DIR --strategy=top"),
        (["--strategy=top", "--tau=0.9"], "--tau goes with --strategy=contribution"),
        (["--strategy=contribution", "--num_layers=2"], "give --tau"),
        (["--strategy=contribution", "--tau=95"], "give --tau=0.95"),
    ],
)
def test_what_is_refused(encoder, tmp_path, capsys, words, message):
    assert drop(encoder, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_model_is_left_alone(encoder, tmp_path, capsys):
    words = ["--strategy=top", "--num_layers=1"]
    assert drop(encoder, tmp_path / "out", *words) == 0
    assert drop(encoder, tmp_path / "out", *words) == 2
    assert "already holds config.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("from_task", [False, True])
def test_the_result_loads_in_transformers(tmp_path, from_task):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if from_task:
        source = save_finetuned(tmp_path / "run", "nli", "classify", NLI_LABELS, num_layers=4)
    else:
        source = save_pretrained(tmp_path / "run", num_layers=4)
    assert drop(source, tmp_path / "out", "--strategy=odd-alternate", "--num_layers=2") == 0
    kind = "AutoModelForSequenceClassification" if from_task else "AutoModelForMaskedLM"
    theirs, loading = getattr(transformers, kind).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (tmp_path / "out" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = tokenizer("the running table", return_tensors="pt")
    with torch.no_grad():
        outputs = theirs.eval()(**inputs, output_hidden_states=True)
    model = load(tmp_path / "out")
    expected = outputs.hidden_states[-1][0, 0].numpy()
    np.testing.assert_allclose(model.encode(["the running table"], pooling="cls")[0], expected, atol=1e-4)
    if from_task:
        shares = torch.softmax(outputs.logits, -1)[0].numpy()
        answer = model.classify(["the running table"])[0]
        np.testing.assert_allclose(list(answer.probabilities.values()), shares, atol=1e-4)
