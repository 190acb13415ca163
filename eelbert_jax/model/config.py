"""What a BERT is; field names are those of Hugging Face's `BertConfig`, so that export is a rename."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec, chosen_fields
from eelbert_jax.vocabulary import Vocabulary

EMBEDDINGS = ("table", "ngram_hash", "random_hash", "hash_initialized")
EMBEDDING_MODES = ("cached", "on_the_fly")

SIZES: dict[str, dict[str, Any]] = {
    "micro": dict(num_hidden_layers=1, hidden_size=32, num_attention_heads=2, intermediate_size=64),
    "uno": dict(num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=128),
    "tiny": dict(num_hidden_layers=2, hidden_size=128, num_attention_heads=2, intermediate_size=512),
    "mini": dict(num_hidden_layers=4, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
    "base": dict(num_hidden_layers=12, hidden_size=768, num_attention_heads=12, intermediate_size=3072),
    "minialbert": dict(
        num_hidden_layers=6,
        hidden_size=768,
        num_attention_heads=12,
        intermediate_size=3072,
        num_hidden_groups=1,
        embedding_size=128,
        adapter_size=48,
        tie_word_embeddings=False,
        pooling="cls",
    ),
}
"""Sizes by name. Source: EELBERT section 4 and table 2; MiniALBERT section 3; `micro` is for tests."""

POOLINGS = ("pooler", "cls")
ARCHITECTURES = ("bert", "distilbert", "roberta", "xlnet")

FIRST_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "initializer_range",
    "embedding",
    "scan_layers",
)
"""Fields of the first version of `BertConfig` that stand in every identity; see `chosen_fields`."""

NOT_IDENTITY = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dtype",
    "embedding_mode",
    "hash",
    "num_labels",
)
"""Fields that a run may change when it takes up a checkpoint, and the hash, which is apart."""


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Describe one BERT; a value out of range is a `UserError`. Source: Devlin et al., EELBERT section 3.

    Attributes:
      initializer_range: standard deviation of the truncated normal initializer.
      embedding_mode: how a hashed embedding is computed; identical bits.
      hash: for `ngram_hash` and `hash_initialized`; `random_hash` takes its seed.
      dtype: of the computation, "float32" or "bfloat16"; parameters are float32 always.
      scan_layers: compile one layer (group) for all, with parameters stacked on axis 0: minutes less for a
        deep model, whose every step then takes longer on a TPU (docs/results.md).
      num_labels: 1 means regression.
      embedding_size: E, width of the embeddings before a dense layer makes them D wide; None: D, without it.
      num_hidden_groups: layers with parameters of their own, each applied R times in a row
        (`num_hidden_layers` over them); None: all. Source: ALBERT.
      adapter_size: width of the bottleneck of two adapters a layer, which recursions do not share; None: no
        adapters. Source: MiniALBERT section 3.
      tie_word_embeddings: a trained table is the decoder of the MLM head too; for that E has to be D.
      pooling: what a row's classifier reads: the "pooler" (dense and tanh), or the state of [CLS] as it is.
      sentence_size: S, width of a sentence encoder's vectors, projections of the mean of the states; None: it
        is none.
      architecture: whose names it is exported by; the pooler of a "distilbert" has a ReLU in place of tanh,
        the positions of a "roberta" begin with the third row of their table; an "xlnet" attends by distances
        and has no position table: `max_position_embeddings` is the length of its rows alone.
      type_vocab_size: 0 or 1 where no table tells segments apart.
      hash_width: W, entries of a hashed vector, projected by a trained matrix [W, E]; None or E: no matrix.
    """

    vocab_size: int = 30522
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 512
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    embedding: str = "ngram_hash"
    embedding_mode: str = "cached"
    hash: HashSpec = dataclasses.field(default_factory=HashSpec)
    dtype: str = "float32"
    scan_layers: bool = False
    num_labels: int = 2
    embedding_size: int | None = None
    num_hidden_groups: int | None = None
    adapter_size: int | None = None
    tie_word_embeddings: bool = True
    pooling: str = "pooler"
    sentence_size: int | None = None
    architecture: str = "bert"
    hash_width: int | None = None

    def __post_init__(self) -> None:
        for name in (
            *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            *("max_position_embeddings", "num_labels"),
            *("embedding_size", "num_hidden_groups", "adapter_size", "sentence_size", "hash_width"),
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}.")
        if self.type_vocab_size < 0:
            raise UserError(f"type_vocab_size must be at least 0, got {self.type_vocab_size}.")
        if self.num_hidden_layers % self.num_groups:
            raise UserError(
                f"num_hidden_layers={self.num_hidden_layers} is no multiple of num_hidden_groups="
                f"{self.num_hidden_groups}; change one of them."
            )
        if self.ties_decoder and self.embedding_width != self.hidden_size:
            raise UserError(
                f"A table of embedding_size={self.embedding_size} is no decoder of hidden_size="
                f"{self.hidden_size}; set tie_word_embeddings=False."
            )
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size={self.hidden_size} is no multiple of num_attention_heads="
                f"{self.num_attention_heads}; change one of them."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"{name} must lie in [0, 1), got {getattr(self, name)}.")
        for name, legal in (
            ("embedding", EMBEDDINGS),
            ("embedding_mode", EMBEDDING_MODES),
            ("dtype", ("float32", "bfloat16")),
            ("pooling", POOLINGS),
            ("architecture", ARCHITECTURES),
        ):
            if getattr(self, name) not in legal:
                raise UserError(f"{name}={getattr(self, name)!r} is not one of {', '.join(legal)}.")
        if self.hash_width == self.embedding_width:  # so that one model has one identity
            object.__setattr__(self, "hash_width", None)
        self._check_hash_width()

    def _check_hash_width(self) -> None:
        if self.hash_width is None:
            return
        if self.has_trained_table:
            raise UserError(
                f"hash_width={self.hash_width} goes with a hashed embedding, got embedding="
                f"{self.embedding!r}; leave hash_width empty, or choose ngram_hash or random_hash."
            )
        if self.hash_width < self.embedding_width:
            raise UserError(
                f"hash_width={self.hash_width} is less than the embedding's width, {self.embedding_width}; "
                f"widen it, or set embedding_size={self.hash_width} without it."
            )

    @property
    def has_trained_table(self) -> bool:
        """Whether the input embedding is a parameter."""
        return self.embedding in ("table", "hash_initialized")

    @property
    def ties_decoder(self) -> bool:
        """Whether the MLM decoder is the input table."""
        return self.tie_word_embeddings and self.has_trained_table

    @property
    def embedding_width(self) -> int:
        """E."""
        return self.embedding_size or self.hidden_size

    @property
    def hash_vector_width(self) -> int:
        """W."""
        return self.hash_width or self.embedding_width

    @property
    def is_relative(self) -> bool:
        """Whether attention knows distances and segments, which the embeddings do not have then."""
        return self.architecture == "xlnet"

    @property
    def first_position(self) -> int:
        """Row of the position table for the first token of a row."""
        return 2 if self.architecture == "roberta" else 0

    @property
    def num_positions(self) -> int:
        """Tokens of the longest row that it reads."""
        return self.max_position_embeddings - self.first_position

    @property
    def num_groups(self) -> int:
        """Layers with parameters of their own."""
        return self.num_hidden_groups or self.num_hidden_layers

    @property
    def num_recursions(self) -> int:
        """R, times that each of them is applied."""
        return self.num_hidden_layers // self.num_groups

    def to_identity(self) -> dict[str, Any]:
        """Return what a checkpoint of it has to be taken up with, as JSON types."""
        fields = {
            name: value
            for name, value in chosen_fields(self, FIRST_FIELDS).items()
            if name not in NOT_IDENTITY
        }
        return {**fields, "hash": None if self.embedding == "table" else self.hash.to_dict()}

    @classmethod
    def from_identity(cls, fields: Mapping[str, Any]) -> "BertConfig":
        """Read what `to_identity` gave, without dropout and in float32; an unknown field is a `UserError`."""
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise UserError(f"A newer version wrote this model ({', '.join(unknown)}); update eelbert_jax.")
        values = {**fields, "hash": HashSpec.from_dict(fields["hash"] or {})}
        return cls(**values, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def identity(config: BertConfig, vocabulary: Vocabulary, lowercase: bool) -> dict[str, Any]:
    """Return what a checkpoint is of, as JSON types: sizes, how text is read, and the hash, if any."""
    return {
        "model": config.to_identity(),
        "vocabulary": vocabulary.fingerprint,
        "lowercase": lowercase,
        "hash": None if config.embedding == "table" else config.hash.fingerprint,
    }


def bert_config(model: Mapping[str, Any], vocab_size: int) -> BertConfig:
    """Return what the group `model` of a config describes; a `vocab_size` of its own must agree."""
    if model["vocab_size"] not in (None, vocab_size):
        raise UserError(
            f"config.model.vocab_size={model['vocab_size']}, but the vocabulary has {vocab_size} tokens; "
            "leave it empty, or name the vocabulary you mean."
        )
    spec = dict(model["hash"])
    if spec["split"].replace(",", "").isdecimal():
        spec["split"] = [int(width) for width in spec["split"].split(",")]
    return BertConfig(**{**model, "vocab_size": vocab_size, "hash": HashSpec.from_dict(spec)})


def sized(size: str, **changes) -> BertConfig:
    """Return the published configuration called `size`, with `changes` applied."""
    if size not in SIZES:
        raise UserError(f"Unknown model size {size!r}; known sizes: {', '.join(SIZES)}.")
    return BertConfig(**{**SIZES[size], **changes})


def size_of(model: Mapping[str, Any]) -> str | None:
    """Return the published size that a BERT's fields agree with, None where there is none."""
    if model.get("architecture", "bert") != "bert":
        return None
    architecture = {name for fields in SIZES.values() for name in fields}
    defaults = {field.name: field.default for field in dataclasses.fields(BertConfig)}
    found = {name: model.get(name, defaults[name]) for name in architecture}
    for size, fields in SIZES.items():
        if found == {name: fields.get(name, defaults[name]) for name in architecture}:
            return size
    return None


def name_of(config: BertConfig) -> str:
    """Return the name in tables; a model of no published size is called by its layers and widths.

    BERT-L6-H384 has six layers, EELBERT-L1x4-H128 one, four times; the feed-forward of EELBERT-L2-H128-F1024
    is not four times as wide as its states.
    """
    times = config.num_hidden_layers // config.num_groups
    layers = f"L{config.num_groups}" + (f"x{times}" if times > 1 else "")
    is_usual = config.intermediate_size == 4 * config.hidden_size
    widths = f"H{config.hidden_size}" + ("" if is_usual else f"-F{config.intermediate_size}")
    size = size_of(dataclasses.asdict(config)) or f"{layers}-{widths}"
    return model_name(size, config.embedding, config.hash_width)


def model_name(size: str, embedding: str, hash_width: int | None = None) -> str:
    """Return the name in tables: BERT-tiny, EELBERT-mini (W=1024), UNO-EELBERT, BERT-mini (random_hash)."""
    details = [] if hash_width is None else [f"W={hash_width}"]
    if embedding == "ngram_hash":
        name = "UNO-EELBERT" if size == "uno" else f"EELBERT-{size}"
    elif size == "minialbert" and embedding == "table":
        name = "MiniALBERT"
    else:
        name = f"BERT-{size}"
        details = details if embedding == "table" else [embedding, *details]
    return f"{name} ({', '.join(details)})" if details else name
