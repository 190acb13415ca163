"""Other encoders' vocabularies, kept as their `tokenizer.json`: RoBERTa's byte-level BPE, XLNet's Unigram.

In a text `<s>` and its like are characters that someone wrote, as everywhere here; in a prompt they are read
as special tokens.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import Ids, Vocabulary, joined_segments, load_vocabulary, save_vocabulary
from eelbert_jax.workdir import TOKENIZER_NAME, VOCABULARY_NAME, write_whole


@dataclasses.dataclass(frozen=True)
class Subwords(Vocabulary):
    """Hold a tokenizer that reads text by rules of its own, `lowercase` among them.

    Attributes:
      content: of the `tokenizer.json`.
      tokenizer_class: of transformers.
    """

    content: str = dataclasses.field(repr=False)

    tokenizer_class: ClassVar[str]

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identify the tokens and the rules: 16 hex digits."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What transformers has to know beside the rules."""
        return {"tokenizer_class": self.tokenizer_class}

    def tokenizer(self, lowercase: bool = False, special_tokens: bool = False) -> Tokenizer:
        """Return what reads text, without a row's special tokens; `lowercase` is in its rules."""
        del lowercase
        values = json.loads(self.content)
        if not special_tokens:
            special = {token["content"] for token in values["added_tokens"] if token["special"]}
            values["added_tokens"] = [
                each for each in values["added_tokens"] if each["content"] not in special
            ]
            if isinstance(values["model"]["vocab"], list):  # Unigram: a piece that no text has
                values["model"]["vocab"] = [
                    (f"\uffff{piece}" if piece in special else piece, score)
                    for piece, score in values["model"]["vocab"]
                ]
        tokenizer = Tokenizer.from_str(json.dumps({**values, "post_processor": None}))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def spelling(self, token_id: int) -> str:
        """Return a token as people read it."""
        text = self._decoder.decode([token_id], skip_special_tokens=False)
        return text.strip() or text

    @functools.cached_property
    def _decoder(self) -> Tokenizer:
        return Tokenizer.from_str(self.content)


class ByteLevelBPE(Subwords):
    """Spell everything with 256 bytes; a space is part of the word behind it. Source: RoBERTa, GPT-2."""

    kind = "byte-level BPE"
    tokenizer_class = "RobertaTokenizer"
    special_tokens = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")

    @property
    def settings(self) -> dict[str, Any]:
        """What transformers has to know beside the rules."""
        splitter = json.loads(self.content)["pre_tokenizer"]
        return {**super().settings, "add_prefix_space": splitter["add_prefix_space"]}

    def row(self, first: Ids, second: Ids | None = None) -> tuple[np.ndarray, list[int]]:
        """Return `<s> a </s>` or `<s> a </s></s> b </s>`, int32 [l], and the sizes of its segments."""
        start, end = [self.cls_id], [self.sep_id]
        segments = [(start, first, end), () if second is None else (end, second, end)]
        return joined_segments(segments)


class Unigram(Subwords):
    """Spell texts by the pieces that are likeliest together; a space is part of the piece behind it.

    What stands for a row comes last, in a segment of its own. Source: XLNet, SentencePiece.
    """

    kind = "Unigram"
    tokenizer_class = "XLNetTokenizer"
    special_tokens = ("<pad>", "<unk>", "<cls>", "<sep>", "<mask>")
    num_before = 0
    num_segments = 3

    @property
    def settings(self) -> dict[str, Any]:
        """What transformers has to know beside the rules."""
        lowercase = '"Lowercase"' in json.dumps(json.loads(self.content)["normalizer"])
        names = ["input_ids", "token_type_ids", "attention_mask"]  # transformers 5 gives no types unasked
        side = {"padding_side": "left", "model_input_names": names}
        return {**super().settings, "do_lower_case": lowercase, **side}

    def row(self, first: Ids, second: Ids | None = None) -> tuple[np.ndarray, list[int]]:
        """Return `a <sep> <cls>` or `a <sep> b <sep> <cls>`, int32 [l], and the sizes of its segments."""
        end = [self.sep_id]
        return joined_segments([(first, end), () if second is None else (second, end), ([self.cls_id],)])


class SubwordEncoder:
    """Text to token ids."""

    def __init__(self, vocabulary: Subwords):
        self.vocabulary = vocabulary
        self._tokenizer = vocabulary.tokenizer()

    def encode(self, text: str) -> np.ndarray:
        """Return the ids of a text, int32 [n]."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)


def byte_level_bpe(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> ByteLevelBPE:
    """Return RoBERTa's tokenizer of a `vocab.json` and a `merges.txt`. Source: transformers."""
    tokenizer = Tokenizer(models.BPE(dict(vocab), list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token in ByteLevelBPE.special_tokens if token in vocab]
    # A mask takes the space before it: it stands for a word with its space.
    tokenizer.add_special_tokens([AddedToken(token, lstrip=token == "<mask>") for token in special])
    if {"<s>", "</s>"} <= vocab.keys():
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), add_prefix_space=False
        )
    found = parse_subwords(tokenizer.to_str(), "vocab.json")
    assert isinstance(found, ByteLevelBPE)
    return found


def parse_subwords(content: str, name: str) -> Subwords:
    """Return the vocabulary in the content of a `tokenizer.json`; `name` is for errors.

    Raises:
      UserError: it is of another kind, or lacks a special token.
    """
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library has no class of its own for it
        raise UserError(f"{name} is no tokenizer.json ({error}); restore the file.") from error
    values = json.loads(tokenizer.to_str())  # the library's oldest files do not name their kinds
    model, splitter = values["model"]["type"], (values["pre_tokenizer"] or {}).get("type")
    kind = _KINDS.get((model, None)) or _KINDS.get((model, splitter))
    if kind is None:
        raise UserError(
            f"{name} is of a {model} tokenizer with {splitter}; expected RoBERTa's, BPE with ByteLevel, or "
            "XLNet's, Unigram."
        )
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise UserError(f"{name}: the ids of its {len(tokens)} tokens are not 0 to {len(tokens) - 1}.")
    # As it was given, not as this version of the library writes it: a fingerprint outlives versions.
    as_given = json.dumps({**json.loads(content), "padding": None, "truncation": None})
    try:
        return kind(tuple(tokens), as_given)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


_KINDS: dict[tuple[str, str | None], type[Subwords]] = {
    ("BPE", "ByteLevel"): ByteLevelBPE,
    ("Unigram", None): Unigram,
}
"""By model and splitter; None: any."""


def save_tokenizer(vocabulary: Vocabulary, folder: Path) -> None:
    """Write a vocabulary of any kind to a folder, whole or not at all."""
    if isinstance(vocabulary, Subwords):
        write_whole(folder / TOKENIZER_NAME, vocabulary.content)
    else:
        save_vocabulary(vocabulary, folder / VOCABULARY_NAME)


def load_tokenizer(folder: Path) -> Vocabulary:
    """Read what `save_tokenizer` wrote."""
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        return load_vocabulary(folder / VOCABULARY_NAME)
    return parse_subwords(path.read_text(encoding="utf-8"), str(path))
