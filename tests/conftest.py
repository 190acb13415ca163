"""What every test stands on: the CPU, no silent broadcasting between ranks, and where the real data lies."""

import io
import itertools
import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

from eelbert_jax import cli
from eelbert_jax.jobs.prepare import prepare_rows
from support import buckets

pytest_plugins = ["support.sweeps"]

# The same examples in every run, however slow the machine: what passes here passes there.
hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None)
hypothesis.settings.load_profile("reproducible")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile the same small programs many times over: keep them for the session.
_COMPILED = tempfile.TemporaryDirectory(prefix="eelbert-tests-compiled-")
jax.config.update("jax_compilation_cache_dir", _COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real text, vocabulary and GLUE; skip where there is none."""
    folder = os.environ.get("EELBERT_DATA")
    if not folder:
        pytest.skip("EELBERT_DATA is not set: this test reads real data.")
    return Path(folder)


@pytest.fixture(scope="session")
def vocabulary_file(data_dir: Path) -> Path:
    """Return the bert-base-uncased vocabulary file."""
    return data_dir / "vocab" / "vocab.txt"


SENTENCES = """The {animal} ran over the {place}. It saw a {thing} and stopped.

A {thing} lay in the {place}, and the {animal} took it home.

"""


@pytest.fixture(scope="session")
def rows_dir(tmp_path_factory) -> Path:
    """Prepare a few hundred rows of sentences with something to learn in them."""
    folder = tmp_path_factory.mktemp("corpus")
    words = {
        "animal": ["dog", "fox", "cat", "bear", "running horse"],
        "place": ["field", "wood", "garden", "river bank"],
        "thing": ["stone", "bone", "nut", "golden ring"],
    }
    texts = [
        SENTENCES.format(animal=animal, place=place, thing=thing)
        for animal, place, thing in itertools.product(*words.values())
    ]
    (folder / "text.txt").write_text("".join(texts) * 20)
    config = cli.load_config("configs/prepare.py")
    config.source = str(folder / "text.txt")
    config.row_length = 32
    config.train_vocabulary.size = 300
    config.held_out.fraction = 0.2
    prepare_rows(config, folder / "rows", io.StringIO())
    return folder / "rows"


@pytest.fixture(scope="session")
def emulated_bucket():
    """Serve a bucket on loopback; skip where its emulator or gcsfs is not installed."""
    with buckets.emulated() as served:
        yield served


@pytest.fixture
def bucket(emulated_bucket):
    """Return the bucket, empty."""
    emulated_bucket.clear()
    return emulated_bucket


@pytest.fixture(scope="session")
def emulated_s3_bucket():
    """Serve a bucket of S3 on loopback; skip where its emulator or s3fs is not installed."""
    with buckets.emulated_s3() as served:
        yield served


@pytest.fixture
def s3_bucket(emulated_s3_bucket):
    """Return the bucket of S3, empty."""
    emulated_s3_bucket.clear()
    return emulated_s3_bucket


@pytest.fixture(params=["bucket", "s3_bucket"])
def either_bucket(request):
    """Return a bucket of either store, empty."""
    return request.getfixturevalue(request.param)
