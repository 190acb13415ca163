"""Distillation of a masked language model: its states, attention and predictions, layer by layer.

Source: MiniALBERT (arXiv:2210.06425), section 3, and the weights and reductions of its code.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.corpus.masking import MaskedRows
from eelbert_jax.errors import UserError
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig
from eelbert_jax.objectives.masked_lm import MaskedLM
from eelbert_jax.objectives.to_teacher import mapped, with_map
from eelbert_jax.training import losses
from eelbert_jax.training.step import TrainState

TEACHER = "teacher"
MAPS = ("uniform", "top", "bottom")
HIDDEN_LOSSES = {"cosine": losses.cosine_distance, "mse": losses.squared_distance}


class Teacher(NamedTuple):
    """Hold a model to learn from; `params` has "cls" only where it predicts tokens."""

    name: str
    config: BertConfig
    params: Any
    constants: Any


@dataclasses.dataclass(frozen=True)
class Terms:
    """What of a teacher is learned; a weight of 0 leaves its term out.

    Attributes:
      mlm_weight: of the cross entropy of masked tokens, the mean over targets.
      attention_weight: of the KL of attention probabilities, the sum over layers; needs as many heads.
      hidden_weight: of the distance of hidden states, the sum over layers.
      logits_weight: of the KL of predictions, the mean over targets; needs a teacher with an MLM head.
      hidden_loss: "cosine" (1 - cosine, the mean over tokens) or "mse" (the mean over entries).
      layers: which teacher layer each of the T student layers (recursions) learns from: "uniform", "top" or
        "bottom" ones, or T numbers from 1, by commas.
    """

    mlm_weight: float = 1.0
    attention_weight: float = 3.0
    hidden_weight: float = 3.0
    logits_weight: float = 5.0
    hidden_loss: str = "cosine"
    layers: str = "uniform"

    def __post_init__(self) -> None:
        weights = (self.mlm_weight, self.attention_weight, self.hidden_weight, self.logits_weight)
        if min(weights) < 0:
            raise UserError(f"No weight of teacher.*_weight may be negative, got {min(weights)}.")
        if not any(weights[1:]):
            raise UserError(
                "Nothing is learned of the teacher: set one of teacher.attention_weight, "
                "teacher.hidden_weight and teacher.logits_weight, or run `eelbert pretrain`."
            )
        if self.hidden_loss not in HIDDEN_LOSSES:
            raise UserError(
                f"teacher.hidden_loss={self.hidden_loss!r} is not one of {', '.join(HIDDEN_LOSSES)}."
            )


def layer_map(layers: str, num_student: int, num_teacher: int) -> tuple[int, ...]:
    """Return for each student layer the teacher's layer that it learns from, from 1.

    Uniform is ceil(i * T_teacher / T_student) of the i-th: its last layer learns from the teacher's last.

    Raises:
      UserError: there is no such map or layer.
    """
    numbers = range(1, num_student + 1)
    if layers == "uniform":
        return tuple(-(-i * num_teacher // num_student) for i in numbers)
    if layers in ("top", "bottom"):
        if num_student > num_teacher:
            raise UserError(
                f"teacher.layers={layers!r} takes one layer of the teacher for each of the student's "
                f"{num_student}, and the teacher has {num_teacher}; take uniform, or fewer layers."
            )
        return tuple(i + (num_teacher - num_student if layers == "top" else 0) for i in numbers)
    words = layers.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise UserError(
            f"teacher.layers={layers!r} is not one of {', '.join(MAPS)}, nor numbers of layers as '2,4,6'."
        )
    chosen = tuple(map(int, words))
    if len(chosen) != num_student:
        raise UserError(
            f"teacher.layers={layers!r} names {len(chosen)} layers, and the student has {num_student} "
            "(recursions count); name one for each."
        )
    absent = [str(i) for i in chosen if not 1 <= i <= num_teacher]
    if absent:
        raise UserError(
            f"teacher.layers={layers!r}: the teacher has no layer {', '.join(absent)}; its layers are 1 to "
            f"{num_teacher}."
        )
    return chosen


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DistilLayers(MaskedLM):
    """Learn from a teacher beside masked tokens; see `training.step.Objective`.

    Teacher and student read the same masked rows; both have the vocabulary of the rows.
    """

    teacher: Teacher
    terms: Terms

    def __post_init__(self) -> None:
        super().__post_init__()
        heads, of_teacher = self.config.num_attention_heads, self.teacher.config.num_attention_heads
        if self.terms.attention_weight and heads != of_teacher:
            raise UserError(
                f"The teacher {self.teacher.name} has {of_teacher} attention heads, the student {heads}: set "
                f"--config.model.num_attention_heads={of_teacher}, or --config.teacher.attention_weight=0."
            )
        if self.terms.logits_weight and "cls" not in self.teacher.params:
            raise UserError(
                f"The teacher {self.teacher.name} has no head to predict tokens with: set "
                "--config.teacher.logits_weight=0, or name one that was saved as BertForMaskedLM."
            )
        if self.row_length > self.teacher.config.num_positions:
            raise UserError(
                f"Rows of {self.row_length} tokens are longer than the teacher {self.teacher.name} reads, "
                f"{self.teacher.config.num_positions}; prepare shorter ones."
            )
        assert self.layer_map

    @functools.cached_property
    def layer_map(self) -> tuple[int, ...]:
        """The teacher's layer for each of the student's."""
        return layer_map(
            self.terms.layers, self.config.num_hidden_layers, self.teacher.config.num_hidden_layers
        )

    @functools.cached_property
    def constants(self) -> Any:
        """The student's, and under "teacher" what the teacher is applied with; a copy on every device."""
        teacher = {"params": self.teacher.params, "constants": self.teacher.constants}
        return {**super().constants, TEACHER: jax.device_put(teacher, self.layout.replicated)}

    def init(self, key: jax.Array) -> Any:
        """Return the first parameters."""
        return with_map(super().init(key), self.config, self.teacher.config.hidden_size, key)

    def loss(
        self, params: Any, constants: Any, examples: MaskedRows, total_weight: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Return the share of the weighted sum of the terms."""
        row_weights = jnp.full(examples.input_ids.shape[:1], 1 / self.batch_size)
        found = self._distances(
            params, constants, examples, examples.weights / total_weight, row_weights, key
        )
        return sum((self._weights[name] * value for name, value in found.items()), jnp.zeros(()))

    @property
    def _weights(self) -> dict[str, float]:
        """The terms that are learned, with their weights."""
        names = ("mlm", "attention", "hidden", "logits")
        weights = {name: getattr(self.terms, f"{name}_weight") for name in names}
        return {name: weight for name, weight in weights.items() if weight}

    def _distances(
        self,
        params: Any,
        constants: Any,
        masked: MaskedRows,
        target_weights: jax.Array,
        row_weights: jax.Array,
        key: jax.Array | None,
    ) -> dict[str, jax.Array]:
        """Return each term by its name, a sum weighted by [B, P] of targets, or by [B] of rows. Traced."""
        variables = self.variables(params, constants)
        (features, decoder, bias), states = _read(self.config, variables, masked, True, key)
        decoder_inputs = (features, self.decoder(params, decoder), bias)
        of_teacher = jax.lax.stop_gradient(constants[TEACHER])
        with_head = "logits" in self._weights
        teacher_inputs, teacher_states = _read(self.teacher.config, of_teacher, masked, with_head, None)
        weights = target_weights.reshape(-1)

        def total(distance: Callable[..., jax.Array], ours: Any, theirs: Any) -> jax.Array:
            pairs = ((one, theirs[number]) for one, number in zip(ours, self.layer_map, strict=True))
            return jnp.sum(row_weights * sum(distance(*pair) for pair in pairs))

        def mlm() -> jax.Array:
            labels = masked.labels.reshape(-1)
            return losses.masked_lm_loss(*decoder_inputs, labels, weights, self.vocab_chunk)

        def logits() -> jax.Array:
            return losses.decoder_kl_loss(decoder_inputs, teacher_inputs, weights, self.vocab_chunk)

        def attention() -> jax.Array:
            theirs = (None, *teacher_states.attention_probs)
            return total(losses.attention_distance, states.attention_probs, theirs)

        def hidden() -> jax.Array:
            width = self.teacher.config.hidden_size
            ours = [mapped(params, self.config, width, each) for each in states.hidden_states[1:]]
            return total(HIDDEN_LOSSES[self.terms.hidden_loss], ours, teacher_states.hidden_states)

        terms = {"mlm": mlm, "attention": attention, "hidden": hidden, "logits": logits}
        return {name: terms[name]() for name in self._weights}

    @functools.cached_property
    def distance_step(self) -> Callable[..., dict[str, jax.Array]]:
        """The jitted (params, constants, rows, row indices, row weights) -> sums of terms and weights."""

        def distance_step(params, constants, rows, indices, row_weights) -> dict[str, jax.Array]:
            masked = self.heldout_examples(rows, indices)
            target_weights = masked.weights * row_weights[:, None]
            found = self._distances(params, constants, masked, target_weights, row_weights, None)
            return {**found, "targets": jnp.sum(target_weights), "rows": jnp.sum(row_weights)}

        return jax.jit(distance_step)

    def evaluate(self, state: TrainState, beat: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Return a masked LM's figures, and `heldout_TERM` of what is learned of the teacher, unweighted."""
        figures, sums = super().evaluate(state, beat), []
        for batch in self.heldout_batches():
            sums.append(jax.device_get(self.distance_step(state.params, self.constants, *batch)))
            beat()
        totals = {name: float(np.sum([each[name] for each in sums], dtype=np.float64)) for name in sums[0]}
        weights = {"attention": totals["rows"], "hidden": totals["rows"], "logits": totals["targets"]}
        return figures | {
            f"heldout_{name}": totals[name] / weight for name, weight in weights.items() if name in totals
        }


def _read(
    config: BertConfig, variables: Any, masked: MaskedRows, with_head: bool, dropout_key: jax.Array | None
) -> tuple[Any, bert.EncoderStates]:
    """Return what predicts the masked tokens, features [B * P, D] (None without head), and all states.

    What no term reads of the states, the compiler leaves out.
    """
    deterministic = dropout_key is None

    def read(module: bert.BertForMaskedLM) -> Any:
        if with_head:
            return module.decoder_inputs(masked.input_ids, masked.positions, deterministic=deterministic)
        module.bert(masked.input_ids, None, None, deterministic)
        return None

    found, collected = bert.BertForMaskedLM(config).apply(
        variables,
        method=read,
        rngs={} if dropout_key is None else {"dropout": dropout_key},
        mutable=["intermediates"],
    )
    states = bert.encoder_states(config, collected["intermediates"])
    if not with_head:
        return None, states
    features, decoder, bias = found
    return (features.reshape(-1, features.shape[-1]), decoder, bias), states
