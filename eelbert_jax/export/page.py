"""A model as one HTML file that answers in any browser, from a disk too: no server, runtime or network."""

import base64
import html
import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from eelbert_jax.compress.quantize import TOLERANCES, Int8, quantize
from eelbert_jax.datasets.tasks import CLASSIFY, TAG
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.inference.labels import Score
from eelbert_jax.inference.predict import Model
from eelbert_jax.model.embeddings import hash_of
from eelbert_jax.model.encoder import unstack_layers

PACKAGE = Path(__file__).resolve().parents[1]
SCRIPT, TEMPLATE, RUNTIME_TEMPLATE = "encoder.js", "page.html", "onnx.html"
ALIGNMENT = 4
"""Bytes: a browser reads float32 from multiples of it alone."""


READ = (
    *("hidden_size", "num_attention_heads", "layer_norm_eps", "embedding", "embedding_width"),
    "hash_vector_width",
    *("num_groups", "num_recursions", "architecture"),
)
"""What the script reads of a model's configuration."""
ARCHITECTURES = ("bert", "distilbert")
PAGE_NAME = "index.html"
"""Of an export: the page."""

_ASK = """
const { page, first, second } = JSON.parse(require("fs").readFileSync(0, "utf-8"));
const [script, answers] = page.split("<script>").slice(1).map((part) => part.split("</script>")[0]);
const Eelbert = new Function(script + "; return Eelbert;")();
const model = new Eelbert.Model(JSON.parse(/^ *const saved = (.*);$/m.exec(answers)[1]));
const ask = (text, i) => (model.task ? model.outputs(text, second?.[i]) : model.embed(text));
console.log(JSON.stringify(first.map((text, i) => Array.from(ask(text, i)))));
"""
"""Computes, in Node, what the scripts of a page answer."""


def web_file(name: str) -> str:
    """Return a file of `web/`, which stands beside the package in a checkout and inside it once installed."""
    found = [folder / "web" / name for folder in (PACKAGE, PACKAGE.parent)]
    return next(path for path in found if path.is_file()).read_text(encoding="utf-8")


def model_page(model: Model, title: str) -> str:
    """Return the page of a model: its int8 weights, the script that computes it, and what can be asked."""
    parts = {"TITLE": html.escape(title), "SCRIPT": web_file(SCRIPT), "MODEL": _as_script(web_model(model))}
    page = web_file(TEMPLATE)
    for name, text in parts.items():
        page = page.replace(f"/*{name}*/", text)
    return page


def runtime_page(title: str) -> str:
    """Return the page that runs the int8 graph beside it in onnxruntime-web: of models of any size."""
    return web_file(RUNTIME_TEMPLATE).replace("/*TITLE*/", html.escape(title))


def web_model(model: Model, weights: str = "int8") -> dict[str, Any]:
    """Return what `Eelbert.Model` of `web/encoder.js` is made of, as JSON types; no head to predict tokens.

    Raises:
      UserError: the model answers in a way that the script does not have.
    """
    config = model.config
    if model.task is not None and model.task.kind == TAG:
        raise UserError("The page answers with classes, numbers and vectors: it has no place for a tagger.")
    if model.task is not None and model.task.pair_encoder == "bi":
        raise UserError("The page reads the texts of a pair as one row, not apart (pair_encoder=bi).")
    if config.architecture not in ARCHITECTURES:
        raise UserError(
            f"The page computes {' and '.join(ARCHITECTURES)}, not {config.architecture}: take --to=hf or "
            "--to=stablehlo."
        )
    params = {name: part for name, part in model.params.items() if name != "cls"}
    if config.scan_layers:
        params["bert"] = {**params["bert"], "encoder": unstack_layers(params["bert"]["encoder"])}
    tensors, data = _packed(quantize(params) if weights == "int8" else params)
    return {
        "config": {name: getattr(config, name) for name in READ},
        "hash": None if config.has_trained_table else _hash(hash_of(config), config.hash_vector_width),
        "task": None if model.task is None else model.task.to_dict(),
        "tokens": list(model.vocabulary.tokens),
        "lowercase": model.lowercase,
        "max_length": model.max_length,
        "tensors": tensors,
        "weights": base64.b64encode(data).decode(),
        "num_bytes": len(data),
    }


def check_page(page: str, model: Model, first: Sequence[str], second: Sequence[str] | None) -> str | None:
    """Run the scripts of a page in Node on texts and say how near it is; None where there is no Node.

    Raises:
      UserError: it answers otherwise than the model.
    """
    if shutil.which("node") is None:
        return None
    asked = json.dumps({"page": page, "first": first, "second": second})
    run = subprocess.run(["node", "-e", _ASK], input=asked, capture_output=True, text=True, check=False)
    if run.returncode:
        raise UserError(f"Node does not run the page: {run.stderr.strip()}")
    found = np.array(json.loads(run.stdout))
    expected = _answers(model, first, second)
    largest = float(np.abs(found - expected).max())
    if not largest <= TOLERANCES["int8"] * max(1.0, float(np.abs(expected).max())):
        raise UserError(
            f"The page answers otherwise than the model: by {largest:.1e}, more than {TOLERANCES['int8']:g}. "
            "Where int8 weights are too coarse for a model, take --to=onnx --weights=float32."
        )
    is_class = model.task is not None and model.task.kind == CLASSIFY
    changed = int(np.sum(found.argmax(axis=1) != expected.argmax(axis=1))) if is_class else 0
    return f"within {largest:.1e}" + f", {changed} of {len(first)} answers changed" * is_class


def _answers(model: Model, first: Sequence[str], second: Sequence[str] | None) -> np.ndarray:
    """Return what `_ASK` gives: probabilities or numbers of a task, or else vectors."""
    if model.task is None:
        return model.encode(first)
    return np.array(
        [
            [answer.score] if isinstance(answer, Score) else list(answer.probabilities.values())
            for answer in model.classify(first, second)
        ]
    )


def _hash(spec: HashSpec, width: int) -> dict[str, Any]:
    """Return a hash function as the script reads it; the seed as text, since it may be beyond 2^53."""
    return {
        **spec.to_dict(),
        "seed": str(spec.seed),
        "widths": spec.widths(width),
        "scale": spec.scale,
    }


def _packed(params: Any) -> tuple[dict[str, Any], bytes]:
    """Return where each tensor lies, by its path, and all of them in one piece."""
    records: dict[str, Any] = {}
    data = bytearray()

    def put(array: np.ndarray) -> int:
        data.extend(bytes(-len(data) % ALIGNMENT))
        start = len(data)
        data.extend(np.ascontiguousarray(array).tobytes())
        return start

    for path, leaf in traverse_util.flatten_dict(params, sep="/").items():
        if isinstance(leaf, Int8):
            shape = leaf.scales.shape
            scales = {"offset": put(leaf.scales), "size": math.prod(shape), "axis": shape.index(1)}
            records[path] = {
                "type": "int8",
                "offset": put(leaf.values),
                "shape": leaf.values.shape,
                "scales": scales,
            }
        else:
            array = np.asarray(leaf, np.float32)
            records[path] = {"type": "float32", "offset": put(array), "shape": array.shape}
    return records, bytes(data)


def _as_script(value: Any) -> str:
    """Return JSON that ends no <script>, whatever the vocabulary holds."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
