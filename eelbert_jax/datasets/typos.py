"""Typing errors: one edit in a share of the words, the same for the same seed."""

import random
import re
import string

WORD = re.compile(r"[^\W\d_]{3,}")
"""Words that are misspelt; shorter ones become other words too easily."""


def misspell(text: str, share: float, seed: int) -> str:
    """Return `text` with one edit in each word with probability `share`.

    A letter is dropped, doubled, replaced by any of a to z, or swapped with the next; the first stays.
    """
    choice = random.Random(f"{seed} {text}")
    return WORD.sub(lambda found: _edited(found[0], choice) if choice.random() < share else found[0], text)


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
