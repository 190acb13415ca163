"""A small corpus, and the command line and the products of its preparation."""

from pathlib import Path

import numpy as np

from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

WORDS = tuple(f"word{number}" for number in range(200))
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS, "."))
NUM_FILES, DOCUMENTS_A_FILE = 6, 40
REFUSE = "--config.on_bad_record=refuse"


def document(number: int) -> str:
    generator = np.random.default_rng(number)
    sentences = (" ".join(generator.choice(WORDS, 20)) + "." for _ in range(generator.integers(1, 8)))
    return "\n".join(sentences)


def flags(corpus: Path, workdir: Path, *more: str) -> list[str]:
    """Return the command line of a small preparation, one unit a file."""
    return [
        f"--config.source={corpus}/*.txt",
        f"--config.vocabulary={corpus}/vocab",
        f"--workdir={workdir}",
        "--config.row_length=16",
        "--config.held_out.fraction=0.1",
        "--config.unit_mib.min=0.01",
        "--config.workers=1",
        *more,
    ]


def files_of(workdir: Path) -> dict[str, bytes]:
    """Return what a preparation made: shards, vocabulary and manifest."""
    names = [*workdir.glob("train/*"), *workdir.glob("heldout/*"), workdir / "vocab.txt"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in [*names, workdir / "manifest.json"]}
