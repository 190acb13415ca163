"""What every test stands on: the CPU, no silent broadcasting between ranks, and where the real data lies."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

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
