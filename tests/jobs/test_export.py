"""`eelbert export`: the folders it writes answer without this package, or are not left behind."""

import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys

import numpy as np
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.export import export
from eelbert_jax.model import bert
from support import folders
from support.models import NLI_LABELS, save_finetuned, save_pretrained
from support.small_runs import classify

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

TEXTS = [
    "the runner opens a table.",
    "run \u200b run",
    "[SEP] files",
    "",
    "run שלום 😀 " * 3,
    "runs " * 10_000,
]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """Return the run of a tagger, and its exports."""
    folder = tmp_path_factory.mktemp("exported")
    run = save_finetuned(folder / "run", "mine", "tag", ("O", "B-X"), num_layers=1)
    assert main(["export", f"--from={run}", "--to=onnx,hf", f"--workdir={folder / 'out'}"]) == 0
    return run, folder / "out"


def asked(folder, code):
    """Return what Python prints that sees the export and no package of ours."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from model import Model\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, check=True, text=True
    ).stdout


def test_the_folder_is_whole(tagger):
    _, out = tagger
    sums = json.loads((out / "onnx" / "checksums.json").read_text())
    assert set(sums) == {
        *("README.md", "config.json", "index.html", "model.py", "vocab.txt"),
        *("tokenizer.json", "tokenizer_config.json"),
        *(
            f"onnx/model{form}{kept}.onnx"
            for form in ("", "_vectors")
            for kept in ("", "_fp16", "_quantized")
        ),
        "onnx/word_vectors.onnx",
    }
    for name, expected in sums.items():
        file = out / "onnx" / name
        assert hashlib.sha256(file.read_bytes()).hexdigest() == expected
        assert stat.S_IMODE(file.stat().st_mode) & 0o444 == 0o444
    card = (out / "onnx" / "README.md").read_text()
    assert "Anything but mine" in card
    assert "onnx/model_quantized.onnx:" in card


def test_model_py_answers_without_jax(tagger):
    run, out = tagger
    code = f"""
import json
texts = {TEXTS!r}
for weights in ("", "quantized"):
    model = Model(weights=weights)
    print(json.dumps([model.tag([text.split() for text in texts]), model.encode(texts).tolist()]))
try:
    model.encode("a text")
except TypeError as error:
    assert "pass a list of texts" in str(error)
else:
    raise AssertionError
assert not {{"jax", "flax", "onnx", "eelbert_jax"}} & sys.modules.keys()"""
    (tags, vectors), (_, coarse) = map(json.loads, asked(out / "onnx", code).splitlines())
    model = load(run)
    assert tags == [[tag.tag for tag in words] for words in model.tag(TEXTS)]
    np.testing.assert_allclose(vectors, model.encode(TEXTS), atol=1e-5)
    assert 1e-5 < np.abs(np.array(coarse) - vectors).max() < 0.1


@pytest.mark.parametrize(
    ("file", "has_sums", "message"),
    [
        ("onnx/word_vectors.onnx", True, "onnx/word_vectors.onnx is damaged: copy the folder again"),
        ("tokenizer.json", True, "tokenizer.json is damaged"),
        ("onnx/model_vectors.onnx", False, "onnx/model_vectors.onnx is not read by onnxruntime"),
    ],
)
def test_model_py_names_a_damaged_file(tagger, tmp_path, file, has_sums, message):
    folder = shutil.copytree(tagger[1] / "onnx", tmp_path / "onnx")
    (folder / file).write_bytes((folder / file).read_bytes()[:-9])
    if not has_sums:
        (folder / "checksums.json").unlink()
    run = subprocess.run(
        [sys.executable, "-I", folder / "model.py", "a"], capture_output=True, text=True, check=False
    )
    assert run.returncode
    assert message in run.stderr.splitlines()[-1]


def test_the_other_folder_is_read_again(tagger):
    run, out = tagger
    np.testing.assert_allclose(load(out / "hf").encode(TEXTS), load(run).encode(TEXTS), atol=1e-6)


def test_pairs_and_their_classes(tmp_path):
    run = save_finetuned(tmp_path / "run", "mine", "classify", NLI_LABELS, pairs=True)
    export(run, tmp_path / "out", ["onnx"], ["ids"])
    first, second = TEXTS, TEXTS[::-1]
    code = f"import json; print(json.dumps(Model().classify({first!r}, {second!r})))"
    answers = load(run).classify(first, second)
    for (label, share), answer in zip(json.loads(asked(tmp_path / "out/onnx", code)), answers, strict=True):
        assert (label, pytest.approx(share, abs=1e-5)) == (answer.label, answer.probability)


def test_several_labels_a_text(tmp_path):
    run = save_finetuned(tmp_path / "run", "mine", "multilabel", NLI_LABELS)
    export(run, tmp_path / "out", ["onnx"], ["ids"])
    found = json.loads(
        asked(tmp_path / "out/onnx", f"import json; print(json.dumps(Model().classify({TEXTS!r})))")
    )
    for shares, answer in zip(found, load(run).classify(TEXTS), strict=True):
        assert dict(shares) == pytest.approx(answer.probabilities, abs=1e-5)


def test_a_graph_that_answers_otherwise_is_removed(tmp_path, monkeypatch, capsys):
    run, other = save_pretrained(tmp_path / "run"), save_pretrained(tmp_path / "other", num_layers=2)
    from eelbert_jax.export import onnx_folder

    right, wrong = onnx_folder.model_graph, load(other)
    monkeypatch.setattr(onnx_folder, "model_graph", lambda model, *how: right(wrong, *how))
    assert main(["export", f"--from={run}", f"--workdir={tmp_path / 'out'}"]) == 2
    assert "model.onnx is wrong and was removed: its logits differ by" in capsys.readouterr().err
    assert not (tmp_path / "out" / "onnx").exists()


def test_every_graph_is_scored_on_the_development_set(tmp_path, capsys):
    classify(tmp_path, tmp_path)
    score = json.loads((tmp_path / "run" / "result.json").read_text())["metrics"]["accuracy"]
    assert 0 < score < 1
    assert main(["export", f"--from={tmp_path / 'run'}", "--to=onnx", f"--workdir={tmp_path / 'out'}"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "onnx/model" in line]
    assert len(lines) == 6
    assert all(line.endswith(f"0 of 32 answers changed, accuracy {score:.4f}") for line in lines)


def test_what_is_too_coarse_costs_nothing_else(tmp_path, capsys):
    task = TaskRecord("mine", "classify", NLI_LABELS, False, 48)
    folders.write(tmp_path / "model", bert.BertForSequenceClassification, task, num_labels=3)

    def spoil(state):  # a row of a matrix has one large weight, of an input that is always 0
        for name in ("weight", "bias"):
            state[f"bert.encoder.layer.0.output.LayerNorm.{name}"][0] = 0
        state["bert.pooler.dense.weight"][:, 0] = 1000

    folders.change(tmp_path / "model", spoil)
    words = ["export", f"--from={tmp_path / 'model'}", f"--workdir={tmp_path / 'out'}"]
    assert main([*words, "--to=onnx,hf_compact,int8"]) == 2
    printed = capsys.readouterr()
    first, second, third = printed.err.strip().splitlines()[-3:]
    assert "onnx/model_quantized.onnx was removed: int8 weights are too coarse for this model" in first
    assert re.search(r"whose logits they change by \d.*, more than 0.05, \d+ of 20 answers changed", first)
    assert "--weights=float32,float16 leaves it out" in first
    assert second.startswith("hf_compact: embedding='table' is a table")
    assert third.startswith("int8: int8 weights change the logits by")
    assert "model_fp16.onnx" in printed.out
    sums = json.loads((tmp_path / "out" / "onnx" / "checksums.json").read_text())
    assert {name for name in sums if name.startswith("onnx/")} == {"onnx/model.onnx", "onnx/model_fp16.onnx"}
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["onnx"]
    assert not (tmp_path / "out" / "onnx" / "onnx" / "model_quantized.onnx").exists()
    assert "quantized" not in (tmp_path / "out" / "onnx" / "README.md").read_text()
    words[-1] += "-again"
    assert main([*words, "--weights=float32,float16"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "export needs a model: add --from=DIR"),
        (["--from={run}", "--to=onx"], "Unknown target of --to 'onx'; did you mean 'onnx'"),
        (["--from={run}", "--inputs=words"], "--inputs=words is not one of ids, signatures, vectors"),
        (["--from={run}", "--weights=int8"], "--weights has no float32, which model.py answers with"),
        (
            ["--from={run}", "--weights=float32,int4"],
            "Unknown kind of --weights 'int4'; did you mean",
        ),
        (["--from={run}/nowhere"], "nowhere"),
    ],
)
def test_bad_input(flags, message, tmp_path, capsys):
    run = save_pretrained(tmp_path / "run")
    words = [word.format(run=run) for word in flags]
    assert main(["export", *words, f"--workdir={tmp_path / 'out'}"]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten(tagger, capsys):
    run, out = tagger
    assert main(["export", f"--from={run}", "--to=hf", f"--workdir={out}"]) == 2
    assert "hf is there already" in capsys.readouterr().err


@pytest.mark.parametrize("has_node", [True, False])
def test_a_page_says_whether_it_was_run(tmp_path, capsys, monkeypatch, has_node):
    run = save_finetuned(tmp_path / "run", "mine", "classify", NLI_LABELS)
    if has_node and shutil.which("node") is None:
        pytest.skip("node is not installed: it runs the page")
    if not has_node:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["export", f"--from={run}", "--to=web", f"--workdir={tmp_path / 'out'}"]) == 0
    expected = "in Node on 20 sentences" if has_node else "not run here: install Node.js"
    assert expected in capsys.readouterr().out
    assert expected in (tmp_path / "out" / "web" / "README.md").read_text()
