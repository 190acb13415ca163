"""How other encoders of BERT's family are written down: their names of tensors and of configuration fields.

What they compute differently are options of the one encoder (`BertConfig.architecture`, `type_vocab_size`).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from eelbert_jax.errors import UserError
from eelbert_jax.subwords import ByteLevelBPE, Unigram
from eelbert_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Describe the layout of an encoder's folder.

    Attributes:
      class_prefix: of transformers' classes; the lower-case form is the `model_type` and the tensors' prefix.
      tensors: pairs of parts of names, BERT's and its own, in the order of their replacement.
      row_head: the same of a classifier of rows, where there is one.
      fields: its names of fields of `BertConfig` that it calls otherwise.
      fixed: fields of `BertConfig` that its configuration does not have, with their values.
      required: what a config.json may leave out but not contradict.
      unread: its names of tensors that no model of ours has, as they begin.
      unused: those among them that transformers asks for, and no head that is written reads: zeros [1, 1, D].
      prefix: of its tensors in a model with a head, where it is not the `model_type`.
      parts: what tensors of a model without a head begin with, where it is saved without that prefix.
      heads_apart: whether attention's matrices are stored as [D, H, D / H].
      vocabulary: how it reads text.
    """

    class_prefix: str
    tensors: tuple[tuple[str, str], ...] = ()
    row_head: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    required: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unread: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    prefix: str | None = None
    parts: tuple[str, ...] = ("embeddings.", "encoder.", "pooler.")
    heads_apart: bool = False
    vocabulary: type[Vocabulary] = Vocabulary

    @property
    def model_type(self) -> str:
        """As config.json has it."""
        return self.class_prefix.lower()

    def field(self, name: str) -> str:
        """Return its name of a field of `BertConfig`."""
        return self.fields.get(name, name)

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """Return its names of all of a model's tensors, by BERT's names."""
        names = list(names)
        has_row_head = {"classifier.bias", "bert.pooler.dense.bias"} <= set(names)
        pairs = (*(self.row_head if has_row_head else ()), *self.tensors)
        return {name: _replaced(name, pairs) for name in names}

    def bert_name(self, name: str) -> str:
        """Return BERT's name of a tensor."""
        if name.startswith(self.parts):
            name = f"{self.prefix or self.model_type}.{name}"
        if name.startswith(self.unread):
            return name
        return _replaced(name, [(own, bert) for bert, own in (*self.row_head, *self.tensors)])


_OF_BERT = {
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
}

ARCHITECTURES = {
    "bert": Architecture("Bert", required=_OF_BERT),
    # No token types and no pooler; its classifier of rows has a dense layer and a ReLU before the last.
    "distilbert": Architecture(
        "DistilBert",
        parts=("embeddings.", "transformer."),
        tensors=(
            ("cls.predictions.transform.dense.", "vocab_transform."),
            ("cls.predictions.transform.LayerNorm.", "vocab_layer_norm."),
            ("cls.predictions.bias", "vocab_projector.bias"),
            ("cls.predictions.decoder.", "vocab_projector."),
            ("bert.pooler.dense.", "pre_classifier."),
            ("bert.embeddings.", "distilbert.embeddings."),
            ("bert.encoder.", "distilbert.transformer."),
            (".attention.self.query.", ".attention.q_lin."),
            (".attention.self.key.", ".attention.k_lin."),
            (".attention.self.value.", ".attention.v_lin."),
            (".attention.output.dense.", ".attention.out_lin."),
            (".attention.output.LayerNorm.", ".sa_layer_norm."),
            (".intermediate.dense.", ".ffn.lin1."),
            (".output.dense.", ".ffn.lin2."),
            (".output.LayerNorm.", ".output_layer_norm."),
        ),
        fields={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12},
        required={"activation": "gelu"},
    ),
    # Positions from the third row on, one token type; its classifier of rows has a dense layer of its own.
    "roberta": Architecture(
        "Roberta",
        tensors=(
            ("cls.predictions.transform.dense.", "lm_head.dense."),
            ("cls.predictions.transform.LayerNorm.", "lm_head.layer_norm."),
            ("cls.predictions.bias", "lm_head.bias"),
            ("cls.predictions.decoder.", "lm_head.decoder."),
            ("bert.", "roberta."),
        ),
        row_head=(("classifier.", "classifier.out_proj."), ("bert.pooler.dense.", "classifier.dense.")),
        required={**_OF_BERT, "pad_token_id": 1},
        unread=("roberta.pooler.",),
        vocabulary=ByteLevelBPE,
    ),
    # Relative attention, no position table; the last token stands for a row. Its head to predict tokens is of
    # a permutation LM, which is none of ours.
    "xlnet": Architecture(
        "XLNet",
        tensors=(
            ("bert.embeddings.word_embeddings.", "transformer.word_embedding."),
            ("bert.pooler.dense.", "sequence_summary.summary."),
            ("bert.encoder.", "transformer."),
            (".attention.self.content_bias", ".rel_attn.r_w_bias"),
            (".attention.self.position_bias", ".rel_attn.r_r_bias"),
            (".attention.self.segment_bias", ".rel_attn.r_s_bias"),
            (".attention.self.segment_embedding", ".rel_attn.seg_embed"),
            (".attention.self.query.weight", ".rel_attn.q"),
            (".attention.self.key.weight", ".rel_attn.k"),
            (".attention.self.value.weight", ".rel_attn.v"),
            (".attention.self.position.weight", ".rel_attn.r"),
            (".attention.output.dense.weight", ".rel_attn.o"),
            (".attention.output.LayerNorm.", ".rel_attn.layer_norm."),
            (".intermediate.dense.", ".ff.layer_1."),
            (".output.dense.", ".ff.layer_2."),
            (".output.LayerNorm.", ".ff.layer_norm."),
        ),
        row_head=(("classifier.", "logits_proj."),),
        fields={
            "hidden_size": "d_model",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "intermediate_size": "d_inner",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "dropout",
        },
        fixed={"type_vocab_size": 0, "max_position_embeddings": 512},
        required={
            "ff_activation": "gelu",
            "untie_r": True,
            "attn_type": "bi",
            "bi_data": False,
            "clamp_len": -1,
            "same_length": False,
            "summary_type": "last",
            "summary_use_proj": True,
            "summary_activation": "tanh",
            "pad_token_id": 5,
        },
        unread=("lm_loss.", "transformer.mask_emb"),
        unused=("transformer.mask_emb",),
        prefix="transformer",
        parts=("word_embedding.", "layer.", "mask_emb"),
        heads_apart=True,
        vocabulary=Unigram,
    ),
}
"""By `BertConfig.architecture`, which is the `model_type`."""


def architecture_of(values: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a config.json names, BERT where it names none.

    Raises:
      UserError: it is none of those read here, or another than as published.
    """
    model_type = values.get("model_type", "bert")
    if model_type not in ARCHITECTURES:
        raise UserError(f"model_type is {model_type!r}; read are {', '.join(ARCHITECTURES)}.")
    architecture = ARCHITECTURES[model_type]
    for name, expected in architecture.required.items():
        if values.get(name, expected) != expected:
            raise UserError(
                f"{name} is {values[name]!r}, expected {expected!r}; a {architecture.class_prefix} as "
                "published is read, and nothing else."
            )
    return architecture


def _replaced(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name
