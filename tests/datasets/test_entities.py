import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.datasets import entities
from eelbert_jax.errors import UserError


def chunks(tags):
    """conlleval's rules as it writes them: does a chunk end before a tag, does one start at it."""

    def split(tag):
        prefix, _, kind = tag.partition("-")
        return prefix, kind

    def ends(before, tag):
        (p, kind), (q, new) = split(before), split(tag)
        return p in "ES" or (p in "BI" and q in "BSO") or (p != "O" and kind != new)

    def starts(before, tag):
        (p, kind), (q, new) = split(before), split(tag)
        return q in "BS" or (p in "ESO" and q in "EI") or (q != "O" and kind != new)

    found, start = set(), None
    for i, (before, tag) in enumerate(zip(["O", *tags], [*tags, "O"], strict=True)):
        if start is not None and ends(before, tag):
            found.add((split(before)[1], start, i))
            start = None
        if starts(before, tag):
            start = i
    return found


TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "LOC"))]


@settings(max_examples=300)
@given(tags=st.lists(st.sampled_from(TAGS), max_size=12))
def test_entities_as_conlleval(tags):
    assert entities.entities(tags) == chunks(tags)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("I-PER I-PER B-PER O", {("PER", 0, 2), ("PER", 2, 3)}),  # IOB1
        ("B-PER I-LOC", {("PER", 0, 1), ("LOC", 1, 2)}),
        ("S-PER B-LOC E-LOC I-LOC", {("PER", 0, 1), ("LOC", 1, 3), ("LOC", 3, 4)}),
        ("B-PER M-PER E-PER W-LOC", {("PER", 0, 3), ("LOC", 3, 4)}),  # BMEWO
        ("U-PER B-PER I-PER L-PER L-LOC", {("PER", 0, 1), ("PER", 1, 4), ("LOC", 4, 5)}),  # BILOU
        ("B E S B M E", {("", 0, 2), ("", 2, 3), ("", 3, 6)}),
        ("PER PER O LOC PER", {("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5)}),
        ("O O", set()),
        ("", set()),
        ("B-a-b I-a-b", {("a-b", 0, 2)}),
    ],
)
def test_entities_by_hand(tags, expected):
    assert entities.entities(tags.split()) == expected


def test_entity_f1_counts_whole_entities():
    truth = [["B-PER", "I-PER", "O"], ["B-LOC"]]
    assert entities.entity_f1(truth, truth) == 1.0
    # Predicted 2, true 2, one of each right.
    assert entities.entity_f1([["B-PER", "O", "O"], ["B-LOC"]], truth) == 0.5
    # Predicted 1 of 2 true, right: F1 = 2 / 3.
    assert entities.entity_f1([["O", "O", "O"], ["B-LOC"]], truth) == pytest.approx(2 / 3)
    assert entities.entity_f1([["O"]], [["O"]]) == 0.0


def test_entity_f1_wants_a_tag_a_word_and_a_scheme():
    with pytest.raises(UserError, match="every word"):
        entities.entity_f1([["O", "O"]], [["O"]])
    with pytest.raises(UserError, match="'X-PER' is no tag"):
        entities.entity_f1([["X-PER"]], [["O"]])
