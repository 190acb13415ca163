"""Imports go one way: what each room of the package may know, read from the syntax trees."""

import ast
import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# (modules, what of ours they must not import). Patterns over dotted names without the leading `eelbert_jax.`.
FORBIDDEN = [
    # The leaves know nothing of ours but the error.
    ("hashing*", "*", ("errors", "hashing*")),
    ("vocabulary", "*", ("errors", "hashing.reference", "store", "workdir")),
    ("subwords", "*", ("errors", "store", "vocabulary", "workdir")),
    ("store", "*", ("errors",)),
    ("lease", "*", ("errors", "store")),
    ("parts", "*", ("lease", "store")),
    ("workdir", "*", ("errors", "lease", "store")),
    ("record", "*", ("errors", "store", "workdir")),
    ("corpus.masking", "*", ("errors",)),
    ("training.losses", "*", ("errors",)),
    ("datasets.entities", "*", ("errors",)),
    ("datasets.multilabel", "*", ("errors", "datasets.entities")),
    ("datasets.metrics", "*", ("errors", "datasets.entities", "datasets.multilabel")),
    ("training.writer", "*", ("errors", "parts", "store", "workdir")),
    # The model knows the hash and the vocabulary.
    ("model*", "*", ("errors", "model*", "hashing*", "subwords", "vocabulary")),
    ("model.count", "*", ("model.config",)),
    # Text and labelled text know no model and no trainer.
    ("corpus*", "*", ("errors", "corpus*", "hashing.spec", "store", "vocabulary", "workdir")),
    ("datasets*", "*", ("errors", "corpus*", "datasets*", "subwords", "vocabulary", "workdir")),
    # Training knows an objective as a protocol, never by name.
    (
        "training*",
        "*",
        ("errors", "lease", "parts", "store", "training*", "subwords", "vocabulary", "workdir"),
    ),
    # A report reads what runs left; it knows the names of sizes, but builds no model.
    (
        "reporting*",
        "*",
        (
            "errors",
            "reporting*",
            "corpus*",
            "datasets*",
            "hashing.spec",
            "model.config",
            "model.count",
            "record",
            "store",
            "training.writer",
            "workdir",
        ),
    ),
    # A sweep starts jobs by their names and reads what they left.
    (
        "sweeping*",
        "*",
        (
            "errors",
            "cli",
            "config_files",
            "record",
            "reporting*",
            "store",
            "sweeping*",
            "training.writer",
            "workdir",
        ),
    ),
    # A model that answers knows no objective; folders of others know no run.
    (
        "inference*",
        "*",
        (
            "errors",
            "datasets*",
            "inference*",
            "interchange*",
            "model*",
            "store",
            "training.checkpoint",
            "subwords",
            "vocabulary",
            "workdir",
        ),
    ),
    (
        "interchange*",
        "*",
        (
            *("errors", "compress.quantize", "datasets.tasks", "hashing.spec", "interchange*", "model*"),
            *("store", "subwords", "vocabulary", "workdir"),
        ),
    ),
    # What makes a model smaller knows models that answer, and no run.
    (
        "compress*",
        "*",
        ("errors", "compress*", "datasets.encoding", "inference.compiled", "inference.predict", "model*"),
    ),
    # An export is made of a model that answers; what leaves with it knows nothing of ours.
    (
        "export*",
        "*",
        (
            *("errors", "compress.quantize", "datasets.encoding", "datasets.tasks", "export*", "hashing*"),
            *("inference.labels", "inference.predict", "interchange*", "model*"),
            *("subwords", "vocabulary", "workdir"),
        ),
    ),
    ("export.outside*", "*", ()),
    # An objective knows a model, data and losses.
    (
        "objectives*",
        "*",
        ("errors", "corpus*", "datasets*", "model*", "objectives*", "training*", "vocabulary"),
    ),
    # A plan is of any jitted step: it knows no model and no trainer.
    ("planning*", "*", ("errors", "planning*")),
]
"""For each pattern of modules: (modules, refused imports of ours, exceptions)."""

OUTSIDERS = {
    "orbax": ("training.checkpoint",),
    "tensorflow_datasets": ("corpus.sources", "datasets.glue"),
    "apache_beam": ("corpus.beam",),
    "fsspec": ("store",),
    "sklearn": ("datasets.baselines",),
    "tokenizers": ("vocabulary", "subwords", "export.outside.*"),
    "ml_collections": ("jobs.*", "cli", "config_files"),
    "jax.experimental.topologies": ("planning.devices",),
    "onnx": ("export.*",),
    "onnxruntime": ("export.check", "export.outside.*"),
    "torch": ("export.outside.*",),
    "transformers": ("export.outside.*",),
}
"""Libraries that stay in the rooms named, inside the package."""

JOBS_ARE_KNOWN_TO = ("__main__", "jobs.*")


def imports_of(source, module):
    """Return the dotted names that `source` imports anywhere, in functions too.

    `from a import b` counts as a and as a.b, since b may be a module.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = ["eelbert_jax", *module.split(".")][: -node.level]
                base = ".".join([*package, base] if base else package)
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def violations(module, source):
    """Return the imports of a module of ours that break a rule, as readable lines."""
    imported = imports_of(source, module)
    broken = []
    for library, rooms in OUTSIDERS.items():
        if any(f"{name}.".startswith(f"{library}.") for name in imported) and not matches(module, rooms):
            broken.append(
                f"{module} imports {library}, which stays in {', '.join(rooms) or 'tests and benchmarks'}"
            )
    ours = {name.removeprefix("eelbert_jax.") for name in imported if name.startswith("eelbert_jax.")}
    ours = {name for name in ours if is_module(name)}
    for who, refused, allowed in FORBIDDEN:
        if matches(module, [who]):
            broken += [
                f"{module} imports {name}"
                for name in sorted(ours)
                if matches(name, [refused]) and not matches(name, allowed)
            ]
    if not matches(module, JOBS_ARE_KNOWN_TO):
        broken += [f"{module} imports {name}" for name in sorted(ours) if matches(name, ["jobs", "jobs.*"])]
    return broken


def is_module(name):
    return (ROOT / "eelbert_jax" / Path(*name.split("."))).with_suffix(".py").is_file()


def modules():
    for path in sorted((ROOT / "eelbert_jax").rglob("*.py")):
        parts = path.relative_to(ROOT / "eelbert_jax").with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_imports_go_one_way():
    broken = [line for module, path in modules() for line in violations(module, path.read_text())]
    assert not broken, "\n".join(broken)


def test_all_rooms_are_seen():
    names = {module for module, _ in modules()}
    assert {
        "hashing.steps",
        "vocabulary",
        "model.bert",
        "corpus.rows",
        "training.loop",
        "jobs.pretrain",
    } <= names


@pytest.mark.parametrize(
    ("module", "source", "culprit"),
    [
        ("hashing.steps", "from eelbert_jax.model import bert", "model.bert"),
        ("vocabulary", "from eelbert_jax.model.config import sized", "model.config"),
        ("corpus.masking", "import eelbert_jax.corpus.rows", "corpus.rows"),
        ("model.bert", "from eelbert_jax.training import losses", "training.losses"),
        ("training.loop", "def f():\n    from eelbert_jax.jobs import pretrain", "jobs.pretrain"),
        ("training.loop", "from eelbert_jax.model import bert", "model.bert"),
        ("training.loop", "from ..model import bert", "model.bert"),
        ("training.loop", "import orbax.checkpoint as ocp", "orbax"),
        ("corpus.rows", "import tokenizers", "tokenizers"),
        ("corpus.rows", "def f():\n    from fsspec.core import url_to_fs", "fsspec"),
        ("jobs.prepare", "import apache_beam as beam", "apache_beam"),
        ("corpus.rows", "from eelbert_jax.jobs.pretrain import main", "jobs.pretrain"),
        ("model.config", "import ml_collections", "ml_collections"),
        ("jobs.prepare", "import tensorflow_datasets as tfds", "tensorflow_datasets"),
        ("interchange.hf", "import torch", "torch"),
        ("interchange.folder", "from eelbert_jax.inference.load import load", "inference.load"),
        ("inference.predict", "from eelbert_jax.objectives import classify", "objectives.classify"),
        ("compress.drop_layers", "from eelbert_jax.training import checkpoint", "training.checkpoint"),
        ("export.outside.model", "from eelbert_jax.vocabulary import Vocabulary", "vocabulary"),
        ("inference.predict", "import onnxruntime", "onnxruntime"),
        ("reporting.runs", "from eelbert_jax.jobs import sizes", "jobs.sizes"),
        ("sweeping.results", "from eelbert_jax.training import checkpoint", "training.checkpoint"),
        ("reporting.claims", "from eelbert_jax.model import bert", "model.bert"),
        ("planning.plan", "from eelbert_jax.training import sharding", "training.sharding"),
        ("planning.plan", "from jax.experimental import topologies", "topologies"),
    ],
)
def test_a_breach_is_noticed(module, source, culprit):
    assert any(culprit in line for line in violations(module, source))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("training.checkpoint", "import orbax.checkpoint as ocp"),
        ("jobs.pretrain", "import ml_collections\nfrom eelbert_jax.training import loop"),
        (
            "model.embeddings",
            "from eelbert_jax.hashing import steps\nfrom eelbert_jax.vocabulary import Vocabulary",
        ),
        ("hashing.steps", "from eelbert_jax.errors import UserError"),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert not violations(module, source)
