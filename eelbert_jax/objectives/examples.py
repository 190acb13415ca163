"""What objectives on encoded examples share: the model, batches of few lengths, outputs."""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from eelbert_jax.datasets import encoding
from eelbert_jax.datasets.splits import Batch, Split, make_batch
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig
from eelbert_jax.objectives.to_teacher import TO_TEACHER
from eelbert_jax.training import sharding
from eelbert_jax.training.sharding import Layout
from eelbert_jax.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class OnExamples(abc.ABC):
    """The part of an objective that does not depend on what is learned of an example.

    Attributes:
      train: the examples to learn from.
      batch_size: B, examples an update over all devices.
      seed: of the order of examples.
    """

    config: BertConfig
    vocabulary: Vocabulary
    layout: Layout
    train: Split
    batch_size: int
    seed: int

    has_many_shapes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        sharding.check_divisible("batch_size", self.batch_size, self.layout.mesh)

    @property
    @abc.abstractmethod
    def model(self) -> Any:
        """The module."""

    @functools.cached_property
    def constants(self) -> Any:
        """A copy on every device."""
        return jax.device_put(bert.constants(self.config, self.vocabulary), self.layout.replicated)

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the last of each length filled up."""
        return len(encoding.eval_batches(self.train.encoded, self.batch_size))

    def init(self, key: jax.Array) -> Any:
        """Return the first parameters."""
        return self.model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    @functools.cached_property
    def num_parameters(self) -> int:
        """Numbers that the model has."""
        shapes = dict(jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0))))
        shapes.pop(TO_TEACHER, None)
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))

    @functools.lru_cache(maxsize=1)  # noqa: B019 (an objective lives as long as its run)
    def _epoch(self, epoch: int) -> list[encoding.BatchIndices]:
        return encoding.train_batches(self.train.encoded, self.batch_size, self.seed, epoch)

    def next_batch(self, step: int) -> Batch:
        """Return the batch of the step after `step`, every array [1, B, ...]."""
        epoch, index = divmod(step, self.steps_per_epoch)
        batch = make_batch(self.train, self._epoch(epoch)[index])
        return jax.tree.map(lambda values: sharding.put_rows(values[None], self.layout, row_axis=1), batch)

    def examples(self, batch: Batch, step: jax.Array) -> tuple[Batch, jax.Array]:
        """Return the batch with its weights, and their sum."""
        del step
        return batch, jnp.maximum(jnp.sum(batch.weights), 1.0)

    def outputs(self, params: Any, constants: Any, examples: Batch, key: jax.Array) -> jax.Array:
        """Return what the model says of examples in training."""
        outputs: Any = self._applied(params, constants, examples, key)
        return outputs

    def outputs_and_states(
        self, params: Any, constants: Any, examples: Batch, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Return the same, and the last hidden states [B, L, D]."""
        outputs, collected = self._applied(params, constants, examples, key, mutable=["intermediates"])
        return outputs, bert.encoder_states(self.config, collected["intermediates"]).hidden_states[-1]

    def _applied(self, params: Any, constants: Any, examples: Batch, key: jax.Array, **options: Any) -> Any:
        return self.model.apply(
            {"params": params, "constants": constants},
            examples.input_ids,
            examples.attention_mask,
            examples.token_type_ids,
            deterministic=False,
            rngs={"dropout": key},
            **options,
        )

    @functools.cached_property
    def predict_step(self) -> Callable[[Any, Any, Batch], jax.Array]:
        """The jitted (params, constants, batch) -> float32 outputs, a copy in every process."""
        return bert.make_predict_step(self.model, self.layout.replicated)

    def outputs_of(self, params: Any, batch: Batch) -> jax.Array:
        """Return what the model says of a batch of host arrays."""
        placed = jax.tree.map(lambda values: sharding.put_rows(values, self.layout, row_axis=0), batch)
        return self.predict_step(params, self.constants, placed)
