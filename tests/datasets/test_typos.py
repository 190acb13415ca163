"""Typing errors."""

import pytest

from eelbert_jax.datasets.typos import WORD, misspell, misspell_as, noised, read_misspellings
from eelbert_jax.errors import UserError

TEXT = "Several reviewers praised the gorgeous photography and its quietly devastating ending, " * 40


def test_no_share_changes_nothing_and_a_seed_is_repeatable():
    assert misspell(TEXT, 0.0, seed=0) == TEXT
    assert misspell(TEXT, 0.2, seed=0) == misspell(TEXT, 0.2, seed=0)
    assert misspell(TEXT, 0.2, seed=0) != misspell(TEXT, 0.2, seed=1)


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_so_many_words_are_one_edit_away(share):
    before, after = TEXT.split(), misspell(TEXT, share, seed=3).split()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    long = [word for word in before if WORD.search(word)]
    # A swap of equal letters changes nothing.
    assert len(changed) == pytest.approx(share * len(long), rel=0.25)
    assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in changed)
    assert all(distance(a, b) == 1 for a, b in changed)


def test_noised_texts_have_those_edits_and_lack_words():
    texts = ["alphabetical betweenness"] * 1000
    found = [tuple(text.split()) for text in noised(texts, 50.0, seed=0)]
    left_out = sum(2 - len(words) for words in found)
    whole = [word for words in found if len(words) == 2 for word in zip(texts[0].split(), words, strict=True)]
    edits = [distance(before, after) for before, after in whole if before != after]
    # Half of the words have an error, and one of five errors leaves a word out. Within 3 standard deviations.
    assert left_out / 2000 == pytest.approx(0.1, abs=0.02)
    assert len(edits) / len(whole) == pytest.approx(0.4 / 0.9, abs=0.04)
    assert set(edits) == {1}


def test_noise_is_a_function_of_seed_and_place():
    texts = [TEXT] * 3
    once = noised(texts, 30.0, seed=1)
    assert once == noised(texts, 30.0, seed=1)
    assert len({*once, *noised(texts, 30.0, seed=2)}) == 6
    assert noised(["two  spaces"], 0.0, seed=1) == ["two  spaces"]


def test_no_text_is_lost():
    assert all(text.strip() for text in noised(["word", "a word", ""] * 50, 100.0, seed=0)[::3])
    assert noised(["", "a"], 100.0, seed=0) == ["", "a"]


def test_words_that_people_misspelt_are_so_again(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("recieve->receive\nreceeve->receive\n\nadn->and\nfro->for, from, fro,\nTeh->the\n")
    misspellings = read_misspellings(str(path))
    assert misspellings["receive"] == ["recieve", "receeve"]
    assert misspellings["from"] == ["fro"]
    found = misspell_as("Receive the other words and those, " * 50, misspellings, seed=0).split()
    assert {*found[::6]} == {"recieve", "receeve"}
    assert found[1:6] == ["teh", "other", "words", "adn", "those,"]


def test_a_list_of_another_form_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("recieve->receive\nrecieve receive\n")
    with pytest.raises(UserError, match=r"line 2: 'recieve receive' is not of the form wrong->right"):
        read_misspellings(str(path))


def distance(a, b):
    """Return the Damerau-Levenshtein distance (adjacent swaps count one)."""
    rows = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i][j] = min(
                rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            )
            if i > 1 and j > 1 and (a[i - 1], a[i - 2]) == (b[j - 2], b[j - 1]):
                rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1)
    return rows[-1][-1]
