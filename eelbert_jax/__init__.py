"""BERTs without an embedding table: pre-train, fine-tune, compress, measure and ship EELBERT in JAX.

Importing the package imports nothing heavy; take what you need from its modules.
"""

__version__ = "0.1.0"
