"""The exports answer in the programs of others as they do here, in processes that see nothing of ours.

What is not installed here is fetched into a folder of the test, which skips where that fails.
"""

import json
import shutil
import sys

import numpy as np
import pytest

from eelbert_jax.export.transformers_folder import write_transformers_folder
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.export import export
from support import exports
from support.clients import SCRIPT, answer, fetched, said_in_browser
from support.models import NLI_LABELS, save_finetuned

pytestmark = pytest.mark.slow
for package in ("onnx", "onnxruntime", "torch", "transformers"):
    pytest.importorskip(package, reason=f"{package} is not installed")

TEXTS = ["the runner opens a table.", "RUNNING files", "naïve 😀 中文 אבג", ""]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the model of a classifier, and its exports."""
    folder = tmp_path_factory.mktemp("clients")
    run = save_finetuned(folder / "run", "mine", "classify", NLI_LABELS)
    export(run, folder / "out", ["onnx", "hf", "hf_compact"])
    return load(run), folder / "out"


def shares(model):
    return [answer.probabilities for answer in model.classify(TEXTS)]


def assert_shares(found, model, tolerance=1e-5):
    """Hold [[{"label": ..., "score": ...}, ...], ...] against the model, which tells the texts apart."""
    expected = shares(model)
    assert np.ptp([list(row.values()) for row in expected], axis=0).max() > 1e-2
    for rows, row in zip(found, expected, strict=True):
        assert {each["label"]: each["score"] for each in rows} == pytest.approx(row, abs=tolerance)


IN_NODE = """
import { AutoModel, AutoTokenizer, env, pipeline } from "@huggingface/transformers";
const [place, texts] = JSON.parse(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = place;
const found = {};
for (const dtype of ["fp32", "fp16", "q8"]) {
  const classify = await pipeline("text-classification", "onnx", { dtype });
  found[dtype] = [];
  for (const text of texts) found[dtype].push(await classify(text, { top_k: null }));
}
const classify = await pipeline("text-classification", "onnx", { dtype: "fp32" });
found.batch = await classify(texts, { top_k: null });
const embed = await pipeline("feature-extraction", "onnx", { dtype: "fp32" });
found.vectors = [];
for (const text of texts) found.vectors.push((await embed(text, { pooling: "mean" })).tolist()[0]);
console.log(JSON.stringify(found));
"""


@pytest.fixture(scope="module")
def transformers_js(tmp_path_factory):
    """Return a folder that has the package."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder]
    fetched([*words, "@huggingface/transformers@4.3.1"])
    return folder


def test_transformers_js(exported, transformers_js):
    model, out = exported
    (transformers_js / "ask.mjs").write_text(IN_NODE)
    words = ["node", transformers_js / "ask.mjs", json.dumps([f"{out}/", TEXTS])]
    found = answer(words, cwd=transformers_js)
    assert_shares(found["fp32"], model)
    assert_shares(found["batch"], model)  # padded
    assert_shares(found["fp16"], model, 1e-3)
    assert_shares(found["q8"], model, 5e-2)
    assert found["fp32"] != found["q8"]  # each name is another file
    np.testing.assert_allclose(found["vectors"], model.encode(TEXTS), atol=1e-5)


POSTED = """
<script>
  document.getElementById("texts").value = TEXTS.join("\\n");
  const at = document.getElementById("answers"), say = (body) => fetch("/", { method: "POST", body });
  addEventListener("unhandledrejection", (event) => say(String(event.reason)));
  new MutationObserver(() => say(at.textContent)).observe(at, { childList: true });
</script>
"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: it opens the page")
def test_onnxruntime_in_a_browser(exported, transformers_js, tmp_path):
    model, out = exported
    folder = shutil.copytree(out / "onnx", tmp_path / "onnx")
    (folder / "node_modules").symlink_to(transformers_js / "node_modules")
    page = folder / "index.html"
    posted = POSTED.replace("TEXTS", json.dumps(TEXTS))
    page.write_text(page.read_text().replace("</pre>", f"</pre>{posted}"))
    *rows, time = said_in_browser(folder, page.name).splitlines()
    assert time.endswith(" ms")
    named = [[each.rpartition(" ") for each in row.split(", ")] for row in rows]
    found = [[{"label": label, "score": float(share)} for label, _, share in row] for row in named]
    assert_shares(found, model, 5e-2)


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_page_has_what_its_source_assembles_to(tmp_path):
    fetched(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", tmp_path, "wabt@1.0.39"]
    )
    code = """
const source = JSON.parse(process.argv[1]);
require(`${source.place}/node_modules/wabt`)().then((wabt) => {
  const { buffer } = wabt.parseWat("dense.wat", source.text, { simd: true }).toBinary({});
  console.log(JSON.stringify(Buffer.from(buffer).toString("base64")));
});"""
    text = SCRIPT.with_name("dense.wat").read_text()
    found = answer(["node", "-e", code, json.dumps({"place": str(tmp_path), "text": text})])
    assert found in SCRIPT.read_text().replace('" +\n    "', "")
    assert len(found) > 500


def test_sentence_transformers(exported, tmp_path):
    model, out = exported
    fetched(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={tmp_path}"),
            "sentence-transformers==6.2.0",
        ]
    )
    encoder = exports.model(sentence_size=24)
    for name in ("hf", "hf_compact"):
        (tmp_path / "encoder" / name).mkdir(parents=True)
        write_transformers_folder(tmp_path / "encoder" / name, encoder, compact=name == "hf_compact")
    code = """
import json, sys
from sentence_transformers import SentenceTransformer
*places, texts = json.loads(sys.argv[1])
found = []
for place in places:
    stock = SentenceTransformer(f"{place}/hf", device="cpu")
    compact = SentenceTransformer(f"{place}/hf_compact", device="cpu", trust_remote_code=True)
    found.append([model.encode(texts).tolist() for model in (stock, compact)])
assert not {"jax", "eelbert_jax"} & sys.modules.keys()
print(json.dumps(found))"""
    asked = json.dumps([str(out), str(tmp_path / "encoder"), TEXTS])
    env = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    found = answer([sys.executable, "-P", "-c", code, asked], cwd=tmp_path, env=env)
    for pair, expected in zip(found, (model.encode(TEXTS), encoder.encode(TEXTS)), strict=True):
        for vectors in pair:
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_pipelines_of_transformers(exported, tmp_path):
    model, out = exported
    code = """
import json, sys
from transformers import pipeline
place, texts = json.loads(sys.argv[1])
found = [pipeline("text-classification", f"{place}/hf")(texts, top_k=None),
         pipeline("text-classification", f"{place}/hf_compact", trust_remote_code=True)(texts, top_k=None)]
assert not {"jax", "eelbert_jax"} & sys.modules.keys()
print(json.dumps(found))"""
    arguments = [sys.executable, "-I", "-c", code, json.dumps([str(out), TEXTS])]
    for found in answer(arguments, cwd=tmp_path):
        assert_shares(found, model)


def test_onnxruntime_in_an_environment_of_its_own(exported, tmp_path):
    model, out = exported
    fetched([sys.executable, "-m", "venv", tmp_path / "env"])
    python = tmp_path / "env" / "bin" / "python"
    fetched([python, "-m", "pip", "install", "--quiet", "onnxruntime", "tokenizers", "numpy"])
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
from model import Model
print(json.dumps([Model(weights=weights).classify(json.loads(sys.argv[2])) for weights in ("", "fp16")]))"""
    for found, tolerance in zip(
        answer([python, "-I", "-c", code, out / "onnx", json.dumps(TEXTS)]), (1e-5, 1e-3), strict=True
    ):
        for (label, share), expected in zip(found, shares(model), strict=True):
            assert label == max(expected, key=expected.__getitem__)
            assert share == pytest.approx(expected[label], abs=tolerance)
