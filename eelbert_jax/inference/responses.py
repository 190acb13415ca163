"""From a model and texts to what `eelbert predict` prints: an answer a text, as a record and as text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import Finetuned, Pretrained
from eelbert_jax.inference.predict import Classifier, Guesses, MaskFiller, Tagger, probabilities

NO_TAG = ("-", "-")
"""Instead of tag and probability, for a word beyond what the model reads."""


class Query(NamedTuple):
    """One text or pair of texts, and where it stands for an error to say."""

    place: str
    first: str
    second: str | None


Answers = list[tuple[dict[str, Any], str]]
"""For every query its answer as a record and as text."""


def responder(
    model: Finetuned | Pretrained, top: int, batch_size: int
) -> Callable[[Sequence[Query]], Answers]:
    """Return what answers a chunk of queries; it raises `UserError` where a query does not fit the model.

    Args:
      model: as its run left it.
      top: labels, tags or words that are shown.
      batch_size: texts at a time; a pre-trained model has its own.
    """
    if isinstance(model, Pretrained):
        return _mask_responder(model, top)
    make = _tag_responder if model.tags_words else _class_responder
    return make(model, top, batch_size)


def _class_responder(model: Finetuned, top: int, batch_size: int) -> Callable[[Sequence[Query]], Answers]:
    classifier = Classifier(model, batch_size)

    def respond(chunk: Sequence[Query]) -> Answers:
        check_number_of_texts(chunk, model.reads_pairs, f"a model for {model.task}")
        second = [query.second or "" for query in chunk] if model.reads_pairs else None
        logits = classifier.logits([query.first for query in chunk], second)
        return [(record, class_line(record, top)) for record in class_records(model, chunk, logits)]

    return respond


def _tag_responder(model: Finetuned, top: int, batch_size: int) -> Callable[[Sequence[Query]], Answers]:
    tagger = Tagger(model, batch_size)

    def respond(chunk: Sequence[Query]) -> Answers:
        check_number_of_texts(chunk, False, "a model that tags words")
        sentences = [query.first.split() for query in chunk]
        shares = tagger.probabilities(sentences)
        records = [tag_record(model.labels, *answer) for answer in zip(sentences, shares, strict=True)]
        return [(record, tag_lines(record, top)) for record in records]

    return respond


def _mask_responder(model: Pretrained, top: int) -> Callable[[Sequence[Query]], Answers]:
    filler = MaskFiller(model, top)

    def respond(chunk: Sequence[Query]) -> Answers:
        check_number_of_texts(chunk, False, "--fill_mask")
        guesses = filler.guesses([query.first for query in chunk])
        records = [mask_record(*answer) for answer in zip(chunk, guesses, strict=True)]
        return [(record, mask_line(record)) for record in records]

    return respond


def check_number_of_texts(chunk: Sequence[Query], reads_pairs: bool, what: str) -> None:
    """Refuse a single text where pairs are read, and the other way round."""
    for query in chunk:
        if (query.second is not None) != reads_pairs:
            wanted = (
                "two texts: --text and --second_text, or a tab between them" if reads_pairs else "one text"
            )
            got = "one" if query.second is None else "two"
            raise UserError(f"{query.place}: {what} reads {wanted}; got {got}.")


def class_records(model: Finetuned, chunk: Sequence[Query], logits: np.ndarray) -> list[dict[str, Any]]:
    """Return an answer a query: its texts, and label, probability and all classes, or the score."""
    records: list[dict[str, Any]] = []
    shares = probabilities(logits)
    for query, row, outputs in zip(chunk, shares, logits, strict=True):
        record: dict[str, Any] = {"text": query.first}
        if query.second is not None:
            record["second_text"] = query.second
        if model.labels:
            best = int(np.argmax(row))
            record |= {"label": model.labels[best], "probability": float(row[best])}
            record["probabilities"] = dict(zip(model.labels, row.tolist(), strict=True))
        else:
            record["score"] = float(outputs[0])
        records.append(record)
    return records


def class_line(record: dict[str, Any], top: int) -> str:
    """Return an answer as tab-separated text: labels and probabilities, or the score; then the texts."""
    if "score" in record:
        fields = [f"{record['score']:.4f}"]
    else:
        ranked = sorted(record["probabilities"].items(), key=lambda item: -item[1])[:top]
        fields = [field for label, share in ranked for field in (label, f"{share:.4f}")]
    texts = [record[name] for name in ("text", "second_text") if name in record]
    return "\t".join([*fields, *texts])


def mask_record(query: Query, masks: Sequence[Guesses]) -> dict[str, Any]:
    """Return the answer to a text with masks."""
    named = [[{"token": token, "probability": share} for token, share in guesses] for guesses in masks]
    return {"text": query.first, "masks": named}


def mask_line(record: dict[str, Any]) -> str:
    """Return the answer to a text with masks as text: the text, and under it a line a mask."""
    lines = [", ".join(f"{g['token']} {g['probability']:.1%}" for g in mask) for mask in record["masks"]]
    return "\n  ".join([record["text"], *lines])


def tag_record(labels: Sequence[str], words: Sequence[str], shares: np.ndarray) -> dict[str, Any]:
    """Return the answer to a sentence: its words with their tags, null beyond what the model reads."""
    found: list[dict[str, Any]] = [{"word": word, "tag": None, "probability": None} for word in words]
    for word, row in zip(found, shares, strict=False):
        best = int(np.argmax(row))
        word |= {"tag": labels[best], "probability": float(row[best])}
        word["probabilities"] = dict(zip(labels, row.tolist(), strict=True))
    return {"words": found}


def tag_lines(record: dict[str, Any], top: int) -> str:
    """Return the answer to a sentence in columns: word, tags and probabilities; a blank line ends it."""
    lines = []
    for word in record["words"]:
        ranked = sorted(word.get("probabilities", {}).items(), key=lambda item: -item[1])[:top]
        fields = [field for tag, share in ranked for field in (tag, f"{share:.4f}")]
        lines.append("\t".join([word["word"], *(fields or NO_TAG)]))
    return "\n".join([*lines, ""])
