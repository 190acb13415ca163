"""WordPiece vocabularies: load, save, train, fingerprint, and the tokenizer that reads text with one.

The file format is BERT's `vocab.txt`: one token a line, the id is the line number. Those of other encoders
are in `subwords`.
"""

import collections
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.workdir import write_whole

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION_PREFIX = "##"

_LONGEST_WORD = 100
"""Characters; a longer word is [UNK]. Source: the published BERT tokenizer."""

_ALPHABET = 1000
"""Most characters that a trained vocabulary spells words with; others are [UNK]. Source: `tokenizers`."""

_REPEATS_AT_ONCE = 10_000

Ids = Sequence[int] | np.ndarray
"""Of the tokens of a text."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Hold the tokens in the order of their ids: distinct strings, BERT's five special tokens among them.

    Attributes:
      special_tokens: what pads, what is unknown, what stands for a row, what ends a text, what is masked.
      num_before: tokens of a row before those of its first text.
      num_segments: that a row has, the last of them possibly empty.
      kind: what the algorithm is called.
    """

    tokens: tuple[str, ...]

    special_tokens: ClassVar[tuple[str, str, str, str, str]] = SPECIAL_TOKENS
    num_before: ClassVar[int] = 1
    num_segments: ClassVar[int] = 2
    kind: ClassVar[str] = "WordPiece"

    def __post_init__(self) -> None:
        missing = [token for token in self.special_tokens if token not in self._ids]
        if missing:
            raise UserError(
                f"A vocabulary of {self.size} tokens has no {', '.join(missing)}; the model needs "
                f"{', '.join(self.special_tokens)}: add what is missing, or train a vocabulary."
            )
        if len(self._ids) != self.size:
            first = next(token for i, token in enumerate(self.tokens) if self._ids[token] != i)
            raise UserError(f"The vocabulary has the token {first!r} twice; every token must have one id.")
        for i, token in enumerate(self.tokens):
            if not token or "\n" in token or "\r" in token:
                raise UserError(f"Token {i} of the vocabulary is {token!r}: empty, or with a line break.")

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    @property
    def size(self) -> int:
        """V, the number of tokens."""
        return len(self.tokens)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identify the tokens and their order: 16 hex digits."""
        return hashlib.sha256("\n".join(self.tokens).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The content of a `vocab.txt`."""
        return "".join(f"{token}\n" for token in self.tokens)

    def id_of(self, token: str) -> int:
        """Return the id of a token, which must be there."""
        if token not in self._ids:
            raise UserError(f"The token {token!r} is not among the {self.size} tokens of the vocabulary.")
        return self._ids[token]

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    @property
    def pad_id(self) -> int:
        """Id of [PAD]."""
        return self._ids[self.special_tokens[0]]

    @property
    def unk_id(self) -> int:
        """Id of [UNK]."""
        return self._ids[self.special_tokens[1]]

    @property
    def cls_id(self) -> int:
        """Id of [CLS]."""
        return self._ids[self.special_tokens[2]]

    @property
    def sep_id(self) -> int:
        """Id of [SEP]."""
        return self._ids[self.special_tokens[3]]

    @property
    def mask_id(self) -> int:
        """Id of [MASK]."""
        return self._ids[self.mask_token]

    @property
    def mask_token(self) -> str:
        """[MASK]."""
        return self.special_tokens[4]

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of [PAD], [UNK], [CLS], [SEP] and [MASK]."""
        return tuple(self._ids[token] for token in self.special_tokens)

    def row(self, first: Ids, second: Ids | None = None) -> tuple[np.ndarray, list[int]]:
        """Return `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, int32 [l], and the sizes of its segments."""
        cls, sep = [self.cls_id], [self.sep_id]
        segments = [(cls, first, sep), () if second is None else (second, sep)]
        return joined_segments(segments)

    def num_special(self, pairs: bool = False) -> int:
        """Return the tokens of a row that are no text's."""
        return len(self.row((), () if pairs else None)[0])

    def tokenizer(self, lowercase: bool = True, special_tokens: bool = False) -> Tokenizer:
        """Return what reads text; see `make_tokenizer`."""
        return make_tokenizer(self, lowercase, special_tokens)

    def spelling(self, token_id: int) -> str:
        """Return a token as people read it."""
        return self.tokens[token_id]


def joined_segments(segments: Sequence[Sequence[Ids]]) -> tuple[np.ndarray, list[int]]:
    """Return the parts of segments in a row, int32 [l], and the tokens of each segment."""
    sizes = [sum(map(len, parts)) for parts in segments]
    return np.concatenate([np.asarray(part, np.int32) for parts in segments for part in parts]), sizes


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Read a `vocab.txt`."""
    try:
        data = store.folder(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"Cannot read the vocabulary {path}: {error.strerror}; give the path of a vocab.txt."
        ) from error
    return parse_vocabulary(data, str(path))


def parse_vocabulary(data: bytes, name: str) -> Vocabulary:
    """Return the vocabulary in the content of a `vocab.txt`; `name` is for errors.

    Lines may end as on any system and a byte-order mark may stand before the first; other separators of
    Unicode are legal inside a token.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"The vocabulary {name} is no UTF-8 text (byte {error.start}); expected one token a line."
        ) from error
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if lines == [""]:
        raise UserError(f"The vocabulary {name} is empty; expected one token a line.")
    try:
        return Vocabulary(tuple(lines))
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def save_vocabulary(vocabulary: Vocabulary, path: str | Path) -> None:
    """Write a `vocab.txt` that Hugging Face's tokenizers read too, whole or not at all."""
    write_whole(store.folder(path), vocabulary.text)


def check_same(one: Vocabulary, other: Vocabulary, whose: str, others: str) -> None:
    """Refuse two vocabularies that are not the same: ids would mean other tokens."""
    if one.fingerprint != other.fingerprint:
        raise UserError(
            f"The vocabulary of {whose} ({one.size} tokens, {one.fingerprint}) is not that of {others} "
            f"({other.size} tokens, {other.fingerprint}): take two that were made with one."
        )


def unknown_among(ids: Iterable[np.ndarray], vocabulary: Vocabulary) -> tuple[int, int]:
    """Return how many tokens of texts' rows are [UNK], and how many there are without [CLS] and [SEP]."""
    found = np.concatenate([np.empty(0, np.int32), *ids])
    num_marks = int(np.isin(found, (vocabulary.cls_id, vocabulary.sep_id)).sum())
    return int(np.count_nonzero(found == vocabulary.unk_id)), len(found) - num_marks


def check_unknown(num_unknown: int, num_tokens: int, max_percent: float, lowercase: bool) -> None:
    """Refuse a vocabulary that does not fit a text, of whose tokens more than `max_percent` are [UNK]."""
    percent = 100 * num_unknown / max(num_tokens, 1)
    if percent <= max_percent:
        return
    case = "" if lowercase else " or, if the vocabulary is lower-cased, --config.lowercase=True"
    raise UserError(
        f"{percent:.1f} % of the text's tokens are [UNK], more than max_unknown_percent={max_percent:g}: the "
        f"vocabulary does not fit the text. Give another --config.vocabulary{case}; or accept it by "
        "--config.max_unknown_percent=100."
    )


def train_vocabulary(texts: Iterable[str], size: int, lowercase: bool = True) -> Vocabulary:
    """Train a WordPiece vocabulary of at most `size` tokens; the special ones come first, as BERT's.

    The same texts give the same vocabulary, in any order: words are counted here and handed to the library
    with all numbers fixed by which it breaks ties, since its own follow a randomly seeded hash map. The texts
    are read once and not held; the distinct words are. `lowercase` strips accents too, as bert-base-uncased
    does.
    """
    words = _count_words(texts, lowercase)
    if not words:
        raise UserError("The texts hold no word to train a vocabulary on; give text.")
    first = {word[0] for word in words}
    later = {character for word in words for character in word[1:]}
    fixed = [*SPECIAL_TOKENS, *(f"{CONTINUATION_PREFIX}{character}" for character in sorted(later))]
    if size < len(fixed) + len(first | later):
        raise UserError(
            f"A vocabulary of {size} tokens has no room for the special tokens and the {len(first | later)} "
            f"characters of the texts; ask for more than {len(fixed) + len(first | later)}."
        )
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=fixed,
        limit_alphabet=len(first | later),
        continuing_subword_prefix=CONTINUATION_PREFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_repeated(words), trainer)
    ids = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(ids, key=ids.__getitem__)))


def _count_words(texts: Iterable[str], lowercase: bool) -> collections.Counter[str]:
    """Count the words of the texts that are spelled with the `_ALPHABET` most frequent characters.

    Words never reach across a space, so what stands between spaces is counted first and split into words
    once: several times as fast as splitting the texts.
    """
    pieces: collections.Counter[str] = collections.Counter()
    for text in texts:
        pieces.update(text.replace("\n", " ").split(" "))
    normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words: collections.Counter[str] = collections.Counter()
    for piece, count in pieces.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(piece)):
            words[word] += count
    characters: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    rare = set(sorted(characters, key=lambda character: (-characters[character], character))[_ALPHABET:])
    return collections.Counter({word: count for word, count in words.items() if rare.isdisjoint(word)})


def _repeated(words: collections.Counter[str]) -> Iterator[str]:
    """Yield a text that has every word as often as it was counted: the trainer takes no counts."""
    for word, count in words.items():
        for done in range(0, count, _REPEATS_AT_ONCE):
            yield f"{word} " * min(_REPEATS_AT_ONCE, count - done)


def make_tokenizer(vocabulary: Vocabulary, lowercase: bool = True, special_tokens: bool = False) -> Tokenizer:
    """Return BERT's tokenizer: normalizer, split at spaces and punctuation, WordPiece.

    It adds no [CLS] and no [SEP]: rows and pairs are built from ids, where their lengths are known. With
    `special_tokens` it reads "[MASK]" and its like in a text as the special token, as a prompt wants; in a
    corpus they are four characters and two brackets that someone wrote.
    """
    model = models.WordPiece(
        {token: i for i, token in enumerate(vocabulary.tokens)},
        unk_token="[UNK]",
        max_input_chars_per_word=_LONGEST_WORD,
        continuing_subword_prefix=CONTINUATION_PREFIX,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION_PREFIX)
    if special_tokens:
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def tokenizer_json(vocabulary: Vocabulary, lowercase: bool) -> str:
    """Return the content of a `tokenizer.json`: the tokenizer with [CLS] a [SEP] b [SEP] around its texts."""
    tokenizer = make_tokenizer(vocabulary, lowercase, special_tokens=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary.cls_id), ("[SEP]", vocabulary.sep_id)],
    )
    return tokenizer.to_str(pretty=True) + "\n"
