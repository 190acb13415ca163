"""Read how a folder in the Hugging Face layout reads text: its vocabulary, and whether it lowercases."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eelbert_jax.errors import UserError
from eelbert_jax.subwords import ByteLevelBPE, Subwords, byte_level_bpe, parse_subwords
from eelbert_jax.vocabulary import Vocabulary, load_vocabulary

VOCABULARY, SETTINGS, WHOLE = "vocab.txt", "tokenizer_config.json", "tokenizer.json"
"""The published BERTs have the first two; transformers 5 saves the last two."""
BPE, MERGES = "vocab.json", "merges.txt"
"""Of the first published RoBERTas, in place of the last."""

SPECIAL_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
"""In the order of `Vocabulary.special_tokens`."""
WORD_PIECE = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a model holds."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON ({error}); expected a model in the Hugging Face layout: "
            f"config.json, model.safetensors and {VOCABULARY} or {WHOLE}."
        ) from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object; restore the file.")
    return values


def read_tokenizer(folder: Path, kind: type[Vocabulary] = Vocabulary) -> tuple[Vocabulary, bool]:
    """Return the vocabulary of a folder, and whether it reads text in lower case.

    Where no file says so, a vocabulary with capital letters is of a cased model. Others than WordPiece have
    the case among their own rules.
    """
    if issubclass(kind, Subwords):
        return _read_subwords(folder, kind), False
    settings, whole = (
        read_object(folder / name) if (folder / name).is_file() else {} for name in (SETTINGS, WHOLE)
    )
    if (folder / VOCABULARY).is_file():
        vocabulary = load_vocabulary(folder / VOCABULARY)
    elif whole:
        vocabulary = _whole_vocabulary(folder / WHOLE, whole)
    else:
        raise UserError(f"{folder} has neither {VOCABULARY} nor {WHOLE}; put the model's vocabulary there.")
    rules = {**_normalizer_rules(whole), **settings}
    lowercase = rules.get("do_lower_case")
    if not isinstance(lowercase, bool):
        lowercase = not any(token != token.lower() for token in vocabulary.tokens if token[0] != "[")
    place = folder / (SETTINGS if settings else WHOLE)
    if not rules.get("tokenize_chinese_chars", True):
        raise UserError(f"{place}: tokenize_chinese_chars is off; the published BERTs have it on.")
    if rules.get("strip_accents") not in (None, lowercase):
        raise UserError(f"{place}: accents are stripped with lowercasing or not at all; no mix is read here.")
    return vocabulary, lowercase


def _read_subwords(folder: Path, kind: type[Subwords]) -> Subwords:
    if (folder / WHOLE).is_file():
        found = parse_subwords((folder / WHOLE).read_text(encoding="utf-8"), str(folder / WHOLE))
    elif kind is ByteLevelBPE and (folder / BPE).is_file() and (folder / MERGES).is_file():
        found = byte_level_bpe(read_object(folder / BPE), _read_merges(folder / MERGES))
    else:
        others = f"neither {WHOLE} nor {BPE} with {MERGES}" if kind is ByteLevelBPE else f"no {WHOLE}"
        raise UserError(f"{folder} has {others}; load its tokenizer with transformers and save it again.")
    if type(found) is not kind:
        raise UserError(f"{folder / WHOLE} is of {found.kind}, expected {kind.kind}.")
    return found


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of a merges.txt, without the comment of its version."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    pairs = [tuple(line.split(" ")) for line in lines if not line.startswith("#version")]
    for pair in pairs:
        if len(pair) != 2:
            raise UserError(f"{path}: {' '.join(pair)!r} is no pair of tokens; restore the file.")
    return pairs  # type: ignore[return-value]


def _whole_vocabulary(path: Path, whole: Mapping[str, Any]) -> Vocabulary:
    model = whole.get("model") or {}
    kinds = [(whole.get(part) or {}).get("type") for part in ("normalizer", "pre_tokenizer")]
    if not WORD_PIECE.items() <= model.items() or kinds != ["BertNormalizer", "BertPreTokenizer"]:
        raise UserError(
            f"{path} is of a {model.get('type')} tokenizer with {kinds[0]} and {kinds[1]}; expected BERT's: "
            "WordPiece with BertNormalizer and BertPreTokenizer."
        )
    ids = {**model["vocab"], **{token["content"]: token["id"] for token in whole.get("added_tokens", ())}}
    tokens = sorted(ids, key=ids.__getitem__)
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        raise UserError(f"{path}: the ids of its {len(tokens)} tokens are not 0 to {len(tokens) - 1}.")
    return Vocabulary(tuple(tokens))


def _normalizer_rules(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a tokenizer.json says of normalization, by the names of tokenizer_config.json."""
    normalizer = whole.get("normalizer") or {}
    names = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    return {name: normalizer[key] for key, name in names.items() if key in normalizer}


def tokenizer_settings(vocabulary: Vocabulary, lowercase: bool, max_length: int) -> dict[str, Any]:
    """Return the tokenizer_config.json of a model."""
    if isinstance(vocabulary, Subwords):
        return {**vocabulary.settings, "model_max_length": max_length}
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": lowercase,
        "model_max_length": max_length,
        **dict(zip(SPECIAL_NAMES, vocabulary.special_tokens, strict=True)),  # transformers.js asks for them
    }
