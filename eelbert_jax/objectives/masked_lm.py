"""Masked-language modelling: rows of token ids in, the loss at P masked positions a row out."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.corpus import masking
from eelbert_jax.corpus.rows import Rows, id_dtype, row_indices
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig
from eelbert_jax.training import sharding
from eelbert_jax.training.losses import MaskedLMSums, masked_lm_loss, masked_lm_sums
from eelbert_jax.training.sharding import Layout
from eelbert_jax.training.step import TrainState, named_key
from eelbert_jax.vocabulary import Vocabulary

CPU_VOCAB_CHUNK = 4096
"""Columns of the softmax at a time on a CPU: M x 4096 float32 stay near the caches (measured fastest of
512 ... V for M = 320 and D = 128). Elsewhere the whole vocabulary is one slice."""

CPU_TOKENS_A_PASS = 2048
"""Tokens that a CPU takes in one pass: activations of 16 x 128 stay near the caches. A batch of 64 x 128 of
BERT-tiny in four passes is a fifth faster than in one on two cores (25.4k against 20.8k tokens/s)."""


def default_rows_a_pass(rows_per_device: int, row_length: int, platform: str) -> int:
    """Return the rows that a device takes in a pass where the user leaves it open: all on an accelerator."""
    if platform != "cpu":
        return rows_per_device
    fitting = max(CPU_TOKENS_A_PASS // row_length, 1)
    return max(n for n in range(1, min(fitting, rows_per_device) + 1) if rows_per_device % n == 0)


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedLM:
    """The objective of a pre-training; see `training.step.Objective`.

    Masks are functions of (seed, step), of held-out rows of (seed, the row's index).

    Attributes:
      layout: where arrays lie; its devices need not be here.
      batch_size: B, rows an update over all devices.
      steps_per_call: K.
      mlm_probability: of L, rounded up: P, masked positions a row.
      seed: root of masks and of the order of rows.
      train_rows: None, like the next, where a step is only compiled.
      num_eval_rows: the first so many held-out rows are evaluated; None: all.
    """

    config: BertConfig
    vocabulary: Vocabulary
    row_length: int
    layout: Layout
    batch_size: int
    steps_per_call: int = 1
    mlm_probability: float = 0.15
    seed: int = 0
    train_rows: Rows | None = None
    heldout_rows: Rows | None = None
    eval_batch_size: int = 256
    num_eval_rows: int | None = None

    main_figure: ClassVar[str] = "heldout_accuracy"
    keeps_best: ClassVar[bool] = False
    has_many_shapes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        sharding.check_divisible("batch_size", self.batch_size, self.layout.mesh)
        sharding.check_divisible("data.eval_batch_size", self.eval_batch_size, self.layout.mesh)

    @functools.cached_property
    def model(self) -> bert.BertForMaskedLM:
        """The module."""
        return bert.BertForMaskedLM(self.config)

    @functools.cached_property
    def constants(self) -> Any:
        """A copy on every device."""
        return jax.device_put(bert.constants(self.config, self.vocabulary), self.layout.replicated)

    @functools.cached_property
    def mask_options(self) -> dict[str, Any]:
        """Keyword arguments of `masking.mask_rows`."""
        return {
            "num_masked": masking.num_masked(self.row_length, self.mlm_probability),
            "mask_id": self.vocabulary.mask_id,
            "vocab_size": self.vocabulary.size,
            "special_ids": self.vocabulary.special_ids,
        }

    @property
    def vocab_chunk(self) -> int:
        """Columns of the softmax at a time on this platform."""
        on_cpu = self.layout.mesh.devices.flat[0].platform == "cpu"
        return min(self.vocabulary.size, CPU_VOCAB_CHUNK) if on_cpu else self.vocabulary.size

    def init(self, key: jax.Array) -> Any:
        """Return the first parameters."""
        return self.model.init(key, jnp.zeros((1, self.row_length), jnp.int32))["params"]

    def batch_shape(self, steps: int) -> jax.ShapeDtypeStruct:
        """Return shape [K, B, L], type and sharding of a batch of K steps, to compile without rows."""
        shape = (steps, self.batch_size, self.row_length)
        return jax.ShapeDtypeStruct(
            shape, id_dtype(self.vocabulary.size), sharding=self.layout.rows(row_axis=1)
        )

    def next_batch(self, step: int) -> jax.Array:
        """Return the rows [K, B, L] of the K steps after `step`."""
        assert self.train_rows is not None
        rows = self.train_rows
        indices = row_indices(self.seed, step, self.batch_size, len(rows), self.steps_per_call)
        indices = indices.reshape(self.steps_per_call, self.batch_size)

        def read(index: tuple[slice, ...]) -> np.ndarray:
            wanted = indices[index[:2]]
            return rows[wanted.ravel()].reshape(*wanted.shape, -1)

        return sharding.global_array(read, (*indices.shape, rows.row_length), self.layout.rows(row_axis=1))

    def masked_batch(self, update: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (row indices int64 [B], masked ids [B, L]) of an update (1 is the first), as it saw them."""
        assert self.train_rows is not None
        masked, _ = self.examples(self.next_batch(update - 1)[0], jnp.asarray(update - 1))
        return row_indices(self.seed, update - 1, self.batch_size, len(self.train_rows)), np.asarray(
            masked.input_ids
        )

    def examples(self, batch: jax.Array, step: jax.Array) -> tuple[masking.MaskedRows, jax.Array]:
        """Mask the rows of a batch."""
        key = jax.random.fold_in(named_key(self.seed, "mask"), step)
        masked = masking.mask_rows(batch.astype(jnp.int32), key, **self.mask_options)
        return masked, jnp.maximum(jnp.sum(masked.weights), 1.0)

    def loss(
        self,
        params: Any,
        constants: Any,
        examples: masking.MaskedRows,
        total_weight: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Return the share of the mean cross entropy in nats a target."""
        features, decoder, bias, labels = self._decoder_inputs(params, constants, examples, key)
        weights = (examples.weights / total_weight).reshape(-1)
        return masked_lm_loss(features, decoder, bias, labels, weights, self.vocab_chunk)

    def _decoder_inputs(
        self, params: Any, constants: Any, masked: masking.MaskedRows, dropout_key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Return features [B * P, D], decoder, bias and labels [B * P] of masked rows."""
        inputs: Any = self.model.apply(
            self.variables(params, constants),
            masked.input_ids,
            masked.positions,
            deterministic=dropout_key is None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
            method="decoder_inputs",
        )
        features, decoder, bias = inputs
        decoder = self.decoder(params, decoder)
        return features.reshape(-1, features.shape[-1]), decoder, bias, masked.labels.reshape(-1)

    def variables(self, params: Any, constants: Any) -> dict[str, Any]:
        """Return what rows are read with; of a tied table the use as input alone, for the wire's sake."""
        if self.config.ties_decoder and self.layout.mesh.size > 1:
            slots = self.layout.slots(params)
            table = sharding.with_gradient_at(*(bert.token_table(tree) for tree in (params, slots)))
            params = bert.with_token_table(params, table)
        return {"params": params, "constants": constants}

    def decoder(self, params: Any, decoder: jax.Array) -> jax.Array:
        """Return the matrix that tokens are predicted with, which the model gave: a tied table as it is."""
        return bert.token_table(params) if self.config.ties_decoder else decoder

    def heldout_examples(self, rows: jax.Array, indices: jax.Array) -> masking.MaskedRows:
        """Mask held-out rows [B, L], each by its index."""
        key = named_key(self.seed, "eval")
        return masking.mask_rows_by_index(rows.astype(jnp.int32), indices, key, **self.mask_options)

    @functools.cached_property
    def eval_step(self) -> Callable[..., MaskedLMSums]:
        """The jitted (params, constants, rows [B, L], row indices [B], row weights [B]) -> sums."""

        def eval_step(params, constants, rows, indices, row_weights) -> MaskedLMSums:
            masked = self.heldout_examples(rows, indices)
            features, decoder, bias, labels = self._decoder_inputs(params, constants, masked, None)
            weights = (masked.weights * row_weights[:, None]).reshape(-1)
            return masked_lm_sums(features, decoder, bias, labels, weights, self.vocab_chunk)

        return jax.jit(eval_step)

    def evaluate(self, state: TrainState, beat: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Return `heldout_loss` in nats a target, `heldout_accuracy` and `heldout_perplexity`.

        Every row is counted once: the last batch is padded with rows of weight 0.
        """
        totals = np.zeros(3)
        for batch in self.heldout_batches():
            totals += np.asarray(
                jax.device_get(self.eval_step(state.params, self.constants, *batch)), np.float64
            )
            beat()
        loss, correct, weight = totals
        return {
            "heldout_loss": loss / weight,
            "heldout_accuracy": correct / weight,
            "heldout_perplexity": math.exp(min(loss / weight, 700.0)),
        }

    def heldout_batches(self) -> Iterator[tuple[jax.Array, ...]]:
        """Yield (rows [B, L], row indices int32 [B], row weights [B]) of what is evaluated."""
        assert self.heldout_rows is not None
        rows = self.heldout_rows
        num_rows = min(len(rows), self.num_eval_rows or len(rows))
        for start in range(0, num_rows, self.eval_batch_size):
            indices = np.arange(start, start + self.eval_batch_size)
            weights = (indices < num_rows).astype(np.float32)
            indices = np.minimum(indices, num_rows - 1)
            batch = (rows[indices], indices.astype(np.int32), weights)
            yield tuple(sharding.put_rows(values, self.layout, row_axis=0) for values in batch)
