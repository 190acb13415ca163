"""The released models give the same vectors wherever they run, of whatever text."""

import json
import shutil
import sys

import numpy as np
import pytest

from eelbert_jax.export.page import web_model
from eelbert_jax.inference.load import load, released_models
from eelbert_jax.jobs.export import export
from support.clients import answer, fetched, in_browser, in_node

pytestmark = pytest.mark.slow
for package in ("onnx", "onnxruntime", "torch", "transformers"):
    pytest.importorskip(package, reason=f"{package} is not installed")

TEXTS = [
    "a gorgeous, witty, seductive movie",
    "running",
    "",
    "...",
    "\u200b\u00ad",
    "I can't believe it 😂 🏳️‍🌈 👩‍👩‍👧",
    "שלום עולם, how are you?",
    "السلام عليكم ورحمة الله",
    "Der schnelle braune Fuchs springt über den faulen Hund.",
    "東京は日本の首都です。",
    "x" * 120 + " e = mc², naïve ½ €",
    "the runner opens the file " * 2_000,
]
TOLERANCE = 1e-5
"""Of a vector's entries; int8 rounds nothing more, as these models' weights are int8 already."""


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Return the released models, and the folder that holds their exports by name."""
    folder = tmp_path_factory.mktemp("released")
    for name in released_models():
        export(
            name, folder / name, ["onnx", "hf", "hf_compact", "web"], ["vectors"], weights=["float32", "int8"]
        )
    return {name: load(name) for name in released_models()}, folder


def assert_same(found, models, tolerance=TOLERANCE, **how):
    """Hold vectors by model's name, each of several runtimes [r, n, D], against the models."""
    assert found.keys() == models.keys()
    for name, model in models.items():
        expected = model.encode(TEXTS, **how)
        assert np.isfinite(expected).all()
        scale = np.abs(expected).max()
        assert np.abs(expected - np.roll(expected, 1, axis=0)).max(axis=1).min() > 1e-2 * scale  # told apart
        for vectors in found[name]:
            np.testing.assert_allclose(vectors, expected, atol=tolerance * max(1.0, scale))


def test_onnxruntime(released):
    models, folder = released
    code = """
import importlib.util, json, sys
folder, names, texts = json.loads(sys.stdin.read())
found = {}
for name in names:
    spec = importlib.util.spec_from_file_location("model", f"{folder}/{name}/onnx/model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found[name] = [module.Model(weights=weights).encode(texts).tolist() for weights in ("", "quantized")]
assert not {"jax", "eelbert_jax"} & sys.modules.keys()
print(json.dumps(found))"""
    asked = json.dumps([str(folder), list(models), TEXTS])
    assert_same(answer([sys.executable, "-I", "-c", code], input=asked), models)


def test_transformers(released):
    models, folder = released
    code = """
import json, sys
import torch, transformers
folder, names, texts = json.loads(sys.stdin.read())
def means(place, **how):
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, **how)
    model = transformers.AutoModel.from_pretrained(place, add_pooling_layer=False, **how).eval()
    rows = tokenizer(texts, truncation=True, padding=True, return_tensors="pt")
    mask = rows["attention_mask"][..., None]
    with torch.inference_mode():
        return ((model(**rows).last_hidden_state * mask).sum(1) / mask.sum(1)).tolist()
print(json.dumps({name: [means(f"{folder}/{name}/hf"),
                         means(f"{folder}/{name}/hf_compact", trust_remote_code=True)] for name in names}))"""
    asked = json.dumps([str(folder), list(models), TEXTS])
    assert_same(answer([sys.executable, "-I", "-c", code], input=asked), models, pooling="mean")


def test_sentence_transformers(released, tmp_path):
    models, folder = released
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={tmp_path}"]
    fetched([*words, "sentence-transformers==6.2.0"])
    code = """
import json, sys
from sentence_transformers import SentenceTransformer
folder, names, texts = json.loads(sys.stdin.read())
found = {}
for name in names:
    stock = SentenceTransformer(f"{folder}/{name}/hf", device="cpu")
    compact = SentenceTransformer(f"{folder}/{name}/hf_compact", device="cpu", trust_remote_code=True)
    found[name] = [model.encode(texts).tolist() for model in (stock, compact)]
print(json.dumps(found))"""
    env = {"PYTHONPATH": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    asked = json.dumps([str(folder), list(models), TEXTS])
    found = answer([sys.executable, "-P", "-c", code], input=asked, cwd=tmp_path, env=env)
    assert_same(found, models)


EMBED = "value.texts.map((text) => Array.from(model.embed(text)))"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: it runs the page's script")
def test_the_page_in_node(released):
    models, _ = released
    found = {
        name: [
            in_node(
                f"((model) => {EMBED})(new E.Model(value.model))", {"model": web_model(model), "texts": TEXTS}
            )
        ]
        for name, model in models.items()
    }
    assert_same(found, models)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: it opens the page")
def test_the_page_in_a_browser(released):
    models, folder = released
    found = {
        name: [in_browser(folder / name / "web" / "index.html", EMBED, {"texts": TEXTS})] for name in models
    }
    assert_same(found, models)
