"""Encode examples as token ids, and token ids as batches of few static shapes.

Every example goes into the shortest of a few lengths; rows of weight zero fill up the last batch of each.
Batches are pure functions of (seed, epoch).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eelbert_jax.corpus.rows import row_indices
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.datasets.glue import Examples
from eelbert_jax.errors import UserError
from eelbert_jax.subwords import SubwordEncoder, Subwords
from eelbert_jax.vocabulary import Vocabulary

WORTH_COMPILING = 2**15
"""Tokens of padding that a length has to spare an epoch: a second of a tiny model on two cores."""
WORTH_A_BATCH = 2**10
"""The same where lengths stay compiled: what fills up one more batch."""
IGNORED = -1
"""Tag id of a position that is no word's first piece."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Hold the token ids of a split.

    Attributes:
      ids: int32 [l] each, as `Vocabulary.row` has them: [CLS] a [SEP], or [CLS] a [SEP] b [SEP].
      segment_lengths: int32 [n, S], tokens of `[CLS] a [SEP]` and of `b [SEP]`; 0 where there is no b.
      num_empty: texts without a token, empty ones and those of characters that BERT removes.
      word_starts: of sentences of words, where each word's first piece stands, int32 [words that are left].
      num_words: of sentences of words, int32 [n], their words before truncation.
    """

    ids: tuple[np.ndarray, ...]
    segment_lengths: np.ndarray
    max_length: int
    pad_id: int
    truncated: np.ndarray
    num_empty: int
    word_starts: tuple[np.ndarray, ...] = ()
    num_words: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_truncated(self) -> int:
        """Examples that were cut."""
        return int(np.count_nonzero(self.truncated))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every example, int32 [n]."""
        return self.segment_lengths.sum(axis=1, dtype=np.int32)


class BatchIndices(NamedTuple):
    """Say which examples make a batch.

    Attributes:
      length: L, to pad to.
      indices: int64 [B], examples; some again where the batch is filled up.
      weights: float32 [B], 0 for a row that fills up, else 1.
    """

    length: int
    indices: np.ndarray
    weights: np.ndarray


TextEncoder = WordEncoder | SubwordEncoder


@functools.lru_cache(maxsize=4)
def text_encoder(vocabulary: Vocabulary, lowercase: bool) -> TextEncoder:
    """Return the encoder of a vocabulary, with all the words that it remembers."""
    if isinstance(vocabulary, Subwords):
        return SubwordEncoder(vocabulary)
    return WordEncoder(vocabulary, lowercase)


def check_max_length(max_length: int, num_positions: int) -> None:
    """Refuse examples that would be longer than the model's position table."""
    if max_length > num_positions:
        raise UserError(
            f"max_length={max_length}, but the model has {num_positions} positions; set "
            f"--config.max_length={num_positions} or less."
        )


def encode(examples: Examples, vocabulary: Vocabulary, max_length: int, lowercase: bool = True) -> Encoded:
    """Encode the examples of a sentence task; see `encode_texts`."""
    return encode_texts(examples.first, examples.second, vocabulary, max_length, lowercase)


def encode_texts(
    first: Sequence[str],
    second: Sequence[str] | None,
    vocabulary: Vocabulary,
    max_length: int,
    lowercase: bool = True,
) -> Encoded:
    """Encode texts, or pairs of texts, as BERT reads them; "[SEP]" in a text is no special token.

    What is over `max_length` is cut from the end, of a pair the longer text first. Source: Devlin et al.
    2019; Hugging Face's fast tokenizers for the cut.
    """
    num_special = vocabulary.num_special(pairs=second is not None)
    room = max_length - num_special
    if room < num_special - 1:
        raise UserError(
            f"max_length={max_length} has no room beside {num_special} special tokens; take "
            f"{2 * num_special - 1} or more."
        )
    encoder = text_encoder(vocabulary, lowercase)
    ids: list[np.ndarray] = []
    segment_lengths = np.zeros((len(first), vocabulary.num_segments), np.int32)
    truncated = np.zeros(len(first), np.bool_)
    num_empty = 0
    if second is None:
        for i, a in enumerate(map(encoder.encode, first)):
            truncated[i] = len(a) > room
            num_empty += not len(a)
            row, segment_lengths[i] = vocabulary.row(a[:room])
            ids.append(row)
    else:
        for i, (a, b) in enumerate(zip(map(encoder.encode, first), map(encoder.encode, second), strict=True)):
            truncated[i] = len(a) + len(b) > room
            num_empty += (not len(a)) + (not len(b))
            keep_a, keep_b = cut_longest_first(len(a), len(b), room)
            row, segment_lengths[i] = vocabulary.row(a[:keep_a], b[:keep_b])
            ids.append(row)
    return Encoded(tuple(ids), segment_lengths, max_length, vocabulary.pad_id, truncated, int(num_empty))


def encoded_rows(
    rows: Sequence[np.ndarray], max_length: int, pad_id: int, segments: Sequence[list[int]] | None = None
) -> Encoded:
    """Return rows of one text, of which nothing was cut, as `Encoded`; `segments` None: one each."""
    lengths = np.array(segments or [[len(row), 0] for row in rows], np.int32)
    lengths = lengths.reshape(len(rows), -1) if rows else np.zeros((0, 2), np.int32)
    return Encoded(tuple(rows), lengths, max_length, pad_id, np.zeros(len(rows), np.bool_), num_empty=0)


def joined(first: Encoded, second: Encoded) -> Encoded:
    """Return the examples of two splits of texts, one behind the other."""
    return dataclasses.replace(
        first,
        ids=first.ids + second.ids,
        segment_lengths=np.concatenate([first.segment_lengths, second.segment_lengths]),
        truncated=np.concatenate([first.truncated, second.truncated]),
        num_empty=first.num_empty + second.num_empty,
    )


def cut_longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each text stay, taking from the longer one until both fit.

    The odd token goes to the longer of two cut texts, of equals the second. Source: Hugging Face's fast
    tokenizers, "longest_first".
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second)
    if 2 * shorter <= room:
        longer = room - shorter
    else:
        shorter, longer = room // 2, room - room // 2
    return (longer, shorter) if first > second else (shorter, longer)


def encode_words(
    sentences: Sequence[Sequence[str]], vocabulary: Vocabulary, max_length: int, lowercase: bool = True
) -> Encoded:
    """Encode sentences of words, keeping where each word's first piece stands.

    A word of nothing but characters that BERT removes is [UNK], so that every word has a place. Each is read
    with a space before it, which some vocabularies tell from the beginning of a text. Source: Devlin et al.
    2019, section 5.3.
    """
    room = max_length - vocabulary.num_special()
    if room < 1:
        raise UserError(f"max_length={max_length} has no room beside 2 special tokens; take 3 or more.")
    encoder = text_encoder(vocabulary, lowercase)
    unknown = np.array([vocabulary.unk_id])
    ids, word_starts, truncated, segment_lengths = [], [], [], []
    num_empty = 0
    for words in sentences:
        pieces = [encoder.encode(f" {word}") for word in words]
        num_empty += sum(not len(piece) for piece in pieces)
        pieces = [piece if len(piece) else unknown for piece in pieces]
        lengths = np.array([len(piece) for piece in pieces])
        starts = np.cumsum(lengths) - lengths
        truncated.append(lengths.sum() > room)
        row, sizes = vocabulary.row(np.concatenate(pieces)[:room])
        ids.append(row)
        segment_lengths.append(sizes)
        word_starts.append((vocabulary.num_before + starts[starts < room]).astype(np.int32))
    return Encoded(
        ids=tuple(ids),
        segment_lengths=np.array(segment_lengths, np.int32).reshape(-1, vocabulary.num_segments),
        max_length=max_length,
        pad_id=vocabulary.pad_id,
        truncated=np.array(truncated, np.bool_),
        num_empty=num_empty,
        word_starts=tuple(word_starts),
        num_words=np.array([len(words) for words in sentences], np.int32),
    )


def bucket_lengths(lengths: np.ndarray, max_length: int, worth: int) -> tuple[int, ...]:
    """Return the lengths that batches may have: few to compile, near the examples' own [n], n >= 1.

    Of 8, 12, 16, 24, ... and `max_length` those that are used, less the ones that spare fewer than `worth`
    tokens of padding.
    """
    doubled = [8 << power for power in range(max_length.bit_length())]
    steps = sorted(
        {step for two in doubled for step in (two, 3 * two // 2) if step < max_length} | {max_length}
    )
    while True:
        counts = np.bincount(np.searchsorted(steps, lengths), minlength=len(steps))
        steps, counts = [step for step, count in zip(steps, counts, strict=True) if count], counts[counts > 0]
        spared = counts[:-1] * np.diff(steps)
        if not len(spared) or spared.min() >= worth:
            return tuple(steps)
        del steps[int(spared.argmin())]


def train_batches(encoded: Encoded, batch_size: int, seed: int, epoch: int) -> list[BatchIndices]:
    """Return the batches of an epoch, every example once; pure, so a run resumes from its step alone."""
    batches = _batches(encoded, batch_size, _permutation(seed, epoch, len(encoded)), WORTH_COMPILING)
    return [batches[i] for i in _permutation(~seed, epoch, len(batches))]


def eval_batches(encoded: Encoded, batch_size: int, worth: int = WORTH_COMPILING) -> list[BatchIndices]:
    """Return batches that hold every example once, in their order within each length."""
    return _batches(encoded, batch_size, np.arange(len(encoded)), worth)


def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return row_indices(seed, epoch, size, size) if size else np.arange(0)


def _batches(encoded: Encoded, batch_size: int, order: np.ndarray, worth: int) -> list[BatchIndices]:
    if not len(encoded) or batch_size < 1:
        raise UserError(
            f"Cannot make batches of {batch_size} rows out of {len(encoded)} examples; both must be positive."
        )
    lengths = bucket_lengths(encoded.lengths, encoded.max_length, worth)
    buckets = np.searchsorted(lengths, encoded.lengths)[order]
    batches = []
    for bucket, length in enumerate(lengths):
        here = order[buckets == bucket]
        for start in range(0, len(here), batch_size):
            rows = here[start : start + batch_size]
            weights = (np.arange(batch_size) < len(rows)).astype(np.float32)
            batches.append(BatchIndices(length, np.resize(rows, batch_size), weights))
    return batches


def gather(encoded: Encoded, indices: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the padded arrays of the examples `indices` [B].

    Returns:
      input_ids int32 [B, L], attention_mask bool [B, L] with True for a token, token_type_ids int32 [B, L].
    """
    segments = encoded.segment_lengths[indices]
    ends = segments.sum(axis=1)
    if ends.max() > length:
        raise ValueError(f"An example of {ends.max()} tokens does not fit into {length}.")
    positions = np.arange(length)
    mask = positions < ends[:, None]
    input_ids = np.full(mask.shape, encoded.pad_id, np.int32)
    input_ids[mask] = np.concatenate([encoded.ids[i] for i in indices])
    starts = np.cumsum(segments[:, :-1], axis=1)[:, :, None]  # of every segment but the first
    return input_ids, mask, (mask * (positions >= starts).sum(axis=1)).astype(np.int32)


def gather_tags(encoded: Encoded, tags: Sequence[np.ndarray], indices: np.ndarray, length: int) -> np.ndarray:
    """Return the tag ids of some sentences, int32 [B, L], `IGNORED` where no word begins."""
    found = np.full((len(indices), length), IGNORED, np.int32)
    for row, i in enumerate(indices):
        starts = encoded.word_starts[i]
        found[row, starts] = tags[i][: len(starts)]
    return found


def at_words(encoded: Encoded, indices: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    """Return what stands at the first piece of every word that is left of some sentences, [words, ...] each.

    Args:
      indices: integers [B].
      values: [B, L, ...].
    """
    return [row[encoded.word_starts[i]] for i, row in zip(indices, values, strict=True)]
