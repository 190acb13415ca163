import difflib

import pytest

from eelbert_jax.datasets.noise import noised
from eelbert_jax.errors import UserError

TEXTS = ["the quick brown fox jumps over a lazy dog today"] * 400
WORDS = TEXTS[0].split()


def changed_words(texts):
    return sum(
        max(end - start, other_end - other_start)
        for text in texts
        for kind, start, end, other_start, other_end in difflib.SequenceMatcher(
            None, WORDS, text.split(), autojunk=False
        ).get_opcodes()
        if kind != "equal"
    )


@pytest.mark.parametrize("percent", [0.0, 10.0, 40.0])
def test_the_share_of_the_words_is_changed(percent):
    total = len(TEXTS) * len(WORDS)
    found = changed_words(noised(TEXTS, percent, seed=0)) / total
    assert found == pytest.approx(percent / 100, abs=0.02)  # 2.6 standard deviations of 4,000 draws


def test_every_kind_of_error_comes_up():
    found = set(noised(["abcd efgh"] * 200, 50.0, seed=0))
    first_words = {text.split()[0] for text in found}
    assert "efgh" in first_words  # a word left out
    assert {len(word) for word in first_words} == {3, 4}  # a letter left out
    assert "bacd" in first_words  # exchanged
    assert any(sorted(word) not in (sorted("abcd"), sorted("efgh")) for word in first_words if len(word) == 4)


def test_errors_are_a_function_of_seed_and_place():
    once = noised(TEXTS, 30.0, seed=1)
    assert once == noised(TEXTS, 30.0, seed=1)
    assert once[5] != once[6]
    assert once != noised(TEXTS, 30.0, seed=2)


def test_no_text_is_lost():
    assert all(noised(["a", "ab c"] * 100, 100.0, seed=0))
    assert noised([""], 100.0, seed=0) == [""]
    with pytest.raises(UserError, match=r"lie in \[0, 100\], got 101"):
        noised(TEXTS, 101.0, seed=0)
