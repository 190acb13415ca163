"""Texts longer than a model reads: overlapping windows over them, and the mean of what it says of each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from eelbert_jax.datasets.encoding import Encoded, encoded_rows, text_encoder
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Vocabulary


def text_windows(
    texts: Sequence[str], vocabulary: Vocabulary, lowercase: bool, max_length: int, stride: int
) -> tuple[Encoded, np.ndarray]:
    """Encode texts as m windows, and return the text of each, int32 [m]; the last ends where the text ends.

    A window has `max_length` tokens, [CLS] and [SEP] among them; the next starts `stride` tokens later.

    Raises:
      UserError: `stride` would leave tokens out.
    """
    room = check_stride(stride, max_length - vocabulary.num_special())
    encoder = text_encoder(vocabulary, lowercase)
    rows, segments, text_ids = [], [], []
    for number, pieces in enumerate(map(encoder.encode, texts)):
        last = max(len(pieces) - room, 0)
        for start in (*range(0, last, stride), last):
            window = pieces[start : start + room]
            row, sizes = vocabulary.row(window)
            rows.append(row)
            segments.append(sizes)
            text_ids.append(number)
    encoded = encoded_rows(rows, max_length, vocabulary.pad_id, segments)
    return encoded, np.array(text_ids, np.int32)


def mean_of_windows(values: np.ndarray, text_ids: np.ndarray, num_texts: int) -> np.ndarray:
    """Return the mean over the windows of each text, of `values` [m, C], as [n, C]."""
    sums = np.zeros((num_texts, *values.shape[1:]), values.dtype)
    np.add.at(sums, text_ids, values)
    return sums / np.bincount(text_ids, minlength=num_texts)[:, None].astype(values.dtype)


class WordWindow(NamedTuple):
    """Hold some words of a sentence, the first of them at `start`."""

    sentence: int
    start: int
    words: Sequence[str]


def word_windows(
    sentences: Sequence[Sequence[str]],
    vocabulary: Vocabulary,
    lowercase: bool,
    max_length: int,
    stride: int,
) -> Iterator[WordWindow]:
    """Yield windows of whole words over the sentences; arguments and errors as `text_windows`."""
    room = check_stride(stride, max_length - vocabulary.num_special())
    encoder = text_encoder(vocabulary, lowercase)
    for number, words in enumerate(sentences):
        ends = np.cumsum([max(len(encoder.encode(f" {word}")), 1) for word in words])
        start = 0
        while start < len(words):
            read = ends[start - 1] if start else 0
            end = max(int(np.searchsorted(ends, read + room, side="right")), start + 1)
            yield WordWindow(number, start, words[start:end])
            if end == len(words):
                break
            # The next one starts with the first word that begins `stride` tokens later.
            start = min(max(int(np.searchsorted(ends, read + stride)) + 1, start + 1), end)


def check_stride(stride: int, room: int) -> int:
    """Return `room`, a window's tokens of a text, or refuse a stride that leaves tokens out."""
    if not 1 <= stride <= room:
        raise UserError(
            f"stride={stride} is not from 1 to {room}, the tokens that a window of this model has room for; "
            "take half of that, or 0 to cut long texts."
        )
    return room
