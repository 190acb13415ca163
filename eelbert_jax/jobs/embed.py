"""`eelbert embed`: a teacher and sentences in, its vectors of them out, once for many students."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from eelbert_jax import cli
from eelbert_jax.datasets.encoding import Encoded, check_max_length
from eelbert_jax.datasets.sentences import read_sentences
from eelbert_jax.datasets.vectors import text_fingerprint, unit, write_vectors
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.predict import check_pooling
from eelbert_jax.subwords import Subwords
from eelbert_jax.workdir import claim, locked


def embed(config: ml_collections.ConfigDict, teacher: str, workdir: str | Path) -> dict[str, Any]:
    """Compute the vectors that are missing in the workdir and return its manifest.

    Raises:
      UserError: there is no teacher or no sentence, or the workdir holds vectors of others.
    """
    if not teacher:
        raise UserError("embed needs a teacher: add --from=DIR, a run's workdir or a Hugging Face folder.")
    check_pooling(config.pooling)
    folder, started = Path(workdir).expanduser(), time.monotonic()
    claim(folder, "embed")
    model = load(teacher, encoder_only=True)
    check_max_length(config.max_length, model.max_length)
    if isinstance(model.vocabulary, Subwords):
        raise UserError(
            f"{teacher} reads {model.vocabulary.kind}, and a student reads its teacher's rows, of WordPiece: "
            "name a BERT or a DistilBERT."
        )
    fast = dataclasses.replace(model, config=dataclasses.replace(model.config, dtype=config.dtype))
    ids = read_sentences(config.to_dict(), model.vocabulary, model.lowercase)

    def vectors_of(encoded: Encoded) -> np.ndarray:
        return unit(fast.vectors(encoded, config.pooling, config.batch_size))

    identity = {
        "teacher": {
            "name": model.path.name,
            "parameters": model.fingerprint,
            "pooling": config.pooling,
            "dtype": config.dtype,
        },
        "text": text_fingerprint(ids),
        "vocabulary": model.vocabulary.fingerprint,
        "lowercase": model.lowercase,
        "max_length": config.max_length,
    }

    def progress(done: int, total: int) -> None:
        seconds = time.monotonic() - started
        print(f"{done:,} of {total:,} sentences after {seconds:,.0f} seconds", flush=True)

    with locked(folder):
        return write_vectors(folder, ids, vectors_of, model.vocabulary, identity, progress)


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("embed", argv)
    embed(invocation.config, invocation.flags["from"], invocation.workdir)
