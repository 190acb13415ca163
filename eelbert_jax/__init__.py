"""BERTs without an embedding table: pre-train, fine-tune, measure and question EELBERT in JAX.

    model = eelbert_jax.load("runs/sst2")
    model.classify(["a gorgeous, witty, seductive movie"])

Importing the package imports nothing heavy.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from eelbert_jax.inference.predict import Model

__version__ = "0.1.0"


def load(path: "str | Path") -> "Model":
    """Load the model of a run's workdir, or of a folder in the Hugging Face layout.

    Raises:
      UserError: there is none, or it is not what this version computes.
    """
    from eelbert_jax.inference.load import load as load_model  # late: imports JAX

    return load_model(path)
