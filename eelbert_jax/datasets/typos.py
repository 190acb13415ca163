"""Errors in texts, the same for the same seed: an edit in a share of the words, or what people wrote."""

import random
import re
import string
from collections.abc import Callable, Mapping, Sequence

from eelbert_jax.errors import UserError

WORD = re.compile(r"[^\W\d_]{3,}")
"""Words that get errors; shorter ones become other words too easily."""


def misspell(text: str, share: float, seed: int) -> str:
    """Return `text` with one edit in each word with probability `share`.

    A letter is dropped, doubled, replaced by any of a to z, or swapped with the next; the first stays.
    """
    return _changed(text, share, random.Random(f"{seed} {text}"), _edited)


def read_misspellings(path: str) -> dict[str, list[str]]:
    """Return what people wrote for words, in lowercase, of a file of lines `wrong->right`, or `right, right`.

    So are Wikipedia's list of common misspellings "for machines" and the dictionary of codespell written.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().lower().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}; give a text file of lines wrong->right.") from error
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        wrong, arrow, rights = line.partition("->")
        if line.strip() and not arrow:
            raise UserError(f"{path}, line {number}: {line[:40]!r} is not of the form wrong->right.")
        for right in filter(None, map(str.strip, rights.split(","))):
            found.setdefault(right, []).append(wrong.strip())
    return found


def misspell_as(text: str, misspellings: Mapping[str, Sequence[str]], seed: int) -> str:
    """Return `text` with every word that people misspelt as one of them did."""
    choice = random.Random(f"{seed} {text}")
    return WORD.sub(lambda found: choice.choice(misspellings.get(found[0].lower(), [found[0]])), text)


def noised(texts: Sequence[str], percent: float, seed: int) -> list[str]:
    """Return texts in which `percent` of the words are misspelt, or left out as often as each of the edits.

    A text's errors are a function of (seed, its place), so that equal texts differ. None becomes empty.
    """
    if not percent:
        return list(texts)
    found = [
        _changed(text, percent / 100, random.Random(f"{seed} {i}"), _edited_or_left_out)
        for i, text in enumerate(texts)
    ]
    return [changed if changed.strip() else text for text, changed in zip(texts, found, strict=True)]


def _changed(
    text: str, share: float, choice: random.Random, change: Callable[[str, random.Random], str]
) -> str:
    return WORD.sub(lambda found: change(found[0], choice) if choice.random() < share else found[0], text)


def _edited_or_left_out(word: str, choice: random.Random) -> str:
    return _edited(word, choice) if choice.randrange(5) else ""


def _edited(word: str, choice: random.Random) -> str:
    at = choice.randrange(1, len(word))
    edit = choice.randrange(4)
    if edit == 0:
        return word[:at] + word[at + 1 :]
    if edit == 1:
        return word[:at] + word[at - 1] + word[at:]
    if edit == 2:
        other = choice.choice([letter for letter in string.ascii_lowercase if letter != word[at].lower()])
        return word[:at] + other + word[at + 1 :]
    at = max(1, at - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :] if len(word) > at + 1 else word
