"""`eelbert search`: a folder of text and some words in, the passages that say something like it out.

    eelbert search --in=notes "how do I cancel my subscription"

The folder is read once, its vectors are kept in it, and what changed is read again.
"""

import json

from eelbert_jax import cli
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.search import check, search


def main(argv: list[str]) -> None:
    """Run the job from the command line; words that are no flags are the query."""
    query = " ".join(word for word in argv if not word.startswith("-"))
    flags = cli.parse("search", [word for word in argv if word.startswith("-")]).flags
    if not flags["in"]:
        raise UserError('search needs a folder of text: eelbert search --in=DIR "some words".')
    check(flags["in"], query, flags["top"])  # before the model is loaded
    for hit in search(load(flags["from"], encoder_only=True), flags["in"], query, flags["top"]):
        if flags["json"]:
            print(json.dumps(hit._asdict()))
        else:
            print(f"{hit.score:.3f}  {hit.path}:{hit.line}  {hit.text}")
