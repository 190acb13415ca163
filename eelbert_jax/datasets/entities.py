"""Entities in sentences of tagged words: every scheme of prefixes, and whole entities counted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from eelbert_jax.errors import UserError

OUTSIDE = "O"
"""The tag of a word that belongs to no entity."""
BEGINS, INSIDE, ENDS, SINGLE = ("B",), ("I", "M"), ("E", "L"), ("S", "U", "W")
PREFIXES = (*BEGINS, *INSIDE, *ENDS, *SINGLE)
"""Place of a word in its entity: IOB1, IOB2, IOE, IOBES, BILOU, BMES and BMEWO."""


def entity_f1(predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]) -> float:
    """Return the F1 score of whole entities, 0 without any: type, first and last word must agree.

    Source: conlleval of the CoNLL-2000 shared task.
    """
    counts = sum(entity_counts(predictions, labels).values(), np.zeros(3, np.int64))
    return precision_recall_f1(*counts)["f1"]


def entity_counts(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, np.ndarray]:
    """Return for every type of entity how many are right, predicted and true."""
    if [len(tags) for tags in predictions] != [len(tags) for tags in labels]:
        raise UserError("Entity F1 needs one predicted tag for every word of every sentence.")
    counts: dict[str, np.ndarray] = {}
    for predicted_tags, true_tags in zip(predictions, labels, strict=True):
        predicted, true = entities(predicted_tags), entities(true_tags)
        for column, found in enumerate((predicted & true, predicted, true)):
            for kind, _, _ in found:
                counts.setdefault(kind, np.zeros(3, np.int64))[column] += 1
    return dict(sorted(counts.items()))


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a sentence as (type, first word, one past the last).

    Types without a prefix (PER PER O) are runs of one type; a tag that cannot follow (an I- after another
    type) begins an entity, as conlleval has it.
    """
    found: set[tuple[str, int, int]] = set()
    current: tuple[str, int] | None = None
    for i, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = _prefix_and_type(tag)
        begins = tag != OUTSIDE and (prefix in BEGINS + SINGLE or current is None or current[0] != kind)
        if current is not None and (begins or tag == OUTSIDE):
            found.add((*current, i))
            current = None
        if begins:
            current = (kind, i)
        if current is not None and prefix in ENDS + SINGLE:
            found.add((*current, i + 1))
            current = None
    return found


def _prefix_and_type(tag: str) -> tuple[str, str]:
    if is_entity_tag(tag):
        prefix, _, kind = tag.partition("-")
        return prefix, kind
    if "-" in tag:
        raise UserError(
            f"{tag!r} is no tag of an entity; expected O, a type, or one of {', '.join(PREFIXES)}, a hyphen "
            "and a type, as B-PER. Choose accuracy for other tags."
        )
    return INSIDE[0], tag


def is_entity_tag(tag: str) -> bool:
    """Return whether a tag is O or begins with a prefix: alone, or before a hyphen and a type."""
    return tag == OUTSIDE or tag.partition("-")[0] in PREFIXES


def are_entity_tags(tags: Sequence[str]) -> bool:
    """Return whether tags are of entities: prefixes, or types, told from parts of speech by the O."""
    others = [tag for tag in tags if tag != OUTSIDE]
    if not others:
        return False
    are_types = OUTSIDE in tags and all(len(tag) > 1 and tag.isidentifier() for tag in others)
    return all(map(is_entity_tag, others)) or are_types


def precision_recall_f1(num_right: int, num_predicted: int, num_true: int) -> dict[str, Any]:
    """Return precision, recall and F1, 0 where there is nothing to divide by, and how many are true."""
    total = num_predicted + num_true
    return {
        "precision": float(num_right / num_predicted) if num_predicted else 0.0,
        "recall": float(num_right / num_true) if num_true else 0.0,
        "f1": float(2 * num_right / total) if total else 0.0,
        "support": int(num_true),
    }
