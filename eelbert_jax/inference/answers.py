"""What `eelbert predict` prints: for every query an answer as a record and as text."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from eelbert_jax.errors import UserError
from eelbert_jax.inference.predict import Guesses, Label, Model, Score, Tag

NO_TAG = ("-", "-")
"""Instead of tag and probability, for a word beyond what the model reads."""


class Query(NamedTuple):
    """One text or pair of texts, and where it stands for an error to say."""

    place: str
    first: str
    second: str | None


Answers = list[tuple[dict[str, Any], str]]
"""For every query its answer as a record and as text."""


def responder(model: Model, *, fill_mask: bool, top: int) -> Callable[[Sequence[Query]], Answers]:
    """Return what answers queries; it raises `UserError` where a query does not fit the model.

    Args:
      model: any.
      fill_mask: guess words for [MASK]; else classify, or tag, as the model was fine-tuned for.
      top: labels, tags or words that are shown.

    Raises:
      UserError: the model does not answer so.
    """
    if fill_mask:
        model.require_masked_lm()
        return lambda queries: _mask_answers(model, queries, top)
    task = model.require_task("classify", "regress", "tag")
    answer = _tag_answers if task.kind == "tag" else _class_answers
    return lambda queries: answer(model, queries, top)


def _class_answers(model: Model, queries: Sequence[Query], top: int) -> Answers:
    task = model.require_task("classify", "regress")
    _check_number_of_texts(queries, task.reads_pairs, f"a model for {task.name}")
    second = [query.second or "" for query in queries] if task.reads_pairs else None
    found = []
    for query, answer in zip(
        queries, model.classify([query.first for query in queries], second), strict=True
    ):
        texts = {"text": query.first} | ({} if query.second is None else {"second_text": query.second})
        found.append(({**texts, **answer._asdict()}, "\t".join([*_fields(answer, top), *texts.values()])))
    return found


def _tag_answers(model: Model, queries: Sequence[Query], top: int) -> Answers:
    _check_number_of_texts(queries, False, "a model that tags words")
    found = []
    for words in model.tag([query.first for query in queries]):
        lines = ["\t".join([word.word, *_fields(word, top)]) for word in words]
        found.append(({"words": [word._asdict() for word in words]}, "\n".join([*lines, ""])))
    return found


def _mask_answers(model: Model, queries: Sequence[Query], top: int) -> Answers:
    _check_number_of_texts(queries, False, "--fill_mask")
    texts = [query.first for query in queries]
    return [
        (_mask_record(text, masks), "\n  ".join([text, *map(_mask_line, masks)]))
        for text, masks in zip(texts, model.fill_mask(texts, top=top), strict=True)
    ]


def _check_number_of_texts(queries: Sequence[Query], reads_pairs: bool, what: str) -> None:
    """Refuse a single text where pairs are read, and the other way round."""
    for query in queries:
        if (query.second is not None) != reads_pairs:
            wanted = (
                "two texts: --text and --second_text, or a tab between them" if reads_pairs else "one text"
            )
            got = "one" if query.second is None else "two"
            raise UserError(f"{query.place}: {what} reads {wanted}; got {got}.")


def _fields(answer: Label | Score | Tag, top: int) -> Sequence[str]:
    """Return the `top` names with their probabilities, or the number, as fields of a line."""
    if isinstance(answer, Score):
        return [f"{answer.score:.4f}"]
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:top]
    return [field for name, share in ranked for field in (name, f"{share:.4f}")] or NO_TAG


def _mask_record(text: str, masks: Sequence[Guesses]) -> dict[str, Any]:
    named = [[{"token": token, "probability": share} for token, share in guesses] for guesses in masks]
    return {"text": text, "masks": named}


def _mask_line(guesses: Guesses) -> str:
    return ", ".join(f"{token} {share:.1%}" for token, share in guesses)
