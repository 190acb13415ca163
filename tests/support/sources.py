"""A small text, the ways to compress it, and the documents that are read from a source."""

import gzip
import lzma

import zstandard

from eelbert_jax.corpus.documents import ReadOptions, ReadTally
from eelbert_jax.corpus.sources import SourceOptions, find_units

DOCUMENTS = [["A first paragraph.", "A second, naïve one."], ["Another document: 東京."], ["Last.", "End"]]
TEXT = "\n\n".join("\n".join(paragraphs) for paragraphs in DOCUMENTS)
COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(source, *, sizes=(1, 1 << 30), **options):
    """Return (documents as lists of lines, tally) of a source."""
    reading = ReadOptions(**{"on_bad_record": "refuse", **options})
    tally = ReadTally()
    documents: list[str] = []
    units = find_units(str(source), SourceOptions(min_unit_bytes=sizes[0], max_unit_bytes=sizes[1]), reading)
    for unit in units:
        for chunk in unit.read(reading, tally):
            if chunk.starts_document:
                documents.append("")
            documents[-1] += chunk.text
    assert tally.num_bytes == sum(unit.num_bytes for unit in units), "the progress does not end at the total"
    return [
        document.split("\n")[: document.count("\n") + (not document.endswith("\n"))] for document in documents
    ], tally
