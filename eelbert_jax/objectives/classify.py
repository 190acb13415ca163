"""Fine-tuning on texts or pairs of texts: a class or a number for each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets import encoding, metrics
from eelbert_jax.datasets.baselines import majority
from eelbert_jax.datasets.splits import Batch, Split, TaskData, make_batch, predict
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.model import bert
from eelbert_jax.model.config import BertConfig
from eelbert_jax.training import sharding
from eelbert_jax.training.losses import classification_loss, regression_loss
from eelbert_jax.training.sharding import Layout
from eelbert_jax.training.step import TrainState
from eelbert_jax.vocabulary import Vocabulary


class Degenerate(UserError):
    """The model predicts one class for every example, and the config says to stop then."""


class Scored(NamedTuple):
    """The predictions for a split and its labels, by name, with their scores and details."""

    predictions: list[Any]
    labels: list[Any]
    scores: Mapping[str, float]
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Classify:
    """The objective of a fine-tuning on texts; see `training.step.Objective`.

    Attributes:
      config: of the model, with the task's number of labels.
      record: what the model has to remember of the task; a regression learns standardized numbers.
      batch_size: B, examples an update over all devices.
      seed: of the order of examples.
      on_degenerate: what to do when an evaluation predicts one class alone: "say" or "stop".
      balanced: weigh examples (tags) so that all classes count alike.
    """

    config: BertConfig
    vocabulary: Vocabulary
    layout: Layout
    data: TaskData
    record: TaskRecord
    batch_size: int
    seed: int
    on_degenerate: str = "say"
    balanced: bool = False

    model_class: ClassVar[type[nn.Module]] = bert.BertForSequenceClassification
    keeps_best: ClassVar[bool] = True
    has_many_shapes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.on_degenerate not in ("say", "stop"):
            raise UserError(f"on_degenerate={self.on_degenerate!r} is not one of say, stop.")
        sharding.check_divisible("batch_size", self.batch_size, self.layout.mesh)
        if self.balanced and self.record.kind == "regress":
            raise UserError("balanced=True weighs classes, and this task's labels are numbers; leave it off.")

    @property
    def main_figure(self) -> str:
        """The first metric of the task, on the first development split."""
        return f"dev_{self.data.task.metrics[0]}"

    @functools.cached_property
    def model(self) -> Any:
        """The module."""
        return self.model_class(self.config)

    @functools.cached_property
    def constants(self) -> Any:
        """A copy on every device."""
        return jax.device_put(bert.constants(self.config, self.vocabulary), self.layout.replicated)

    @functools.cached_property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the last of each length filled up."""
        return len(encoding.eval_batches(self.data.train.encoded, self.batch_size))

    def init(self, key: jax.Array) -> Any:
        """Return the first parameters."""
        return self.model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    @functools.lru_cache(maxsize=1)  # noqa: B019 (an objective lives as long as its run)
    def _epoch(self, epoch: int) -> list[encoding.BatchIndices]:
        return encoding.train_batches(self.data.train.encoded, self.batch_size, self.seed, epoch)

    def next_batch(self, step: int) -> Batch:
        """Return the batch of the step after `step`, every array [1, B, ...]."""
        epoch, index = divmod(step, self.steps_per_epoch)
        batch = make_batch(self.data.train, self._epoch(epoch)[index])
        return jax.tree.map(lambda values: sharding.put_rows(values[None], self.layout, row_axis=1), batch)

    def examples(self, batch: Batch, step: jax.Array) -> tuple[Batch, jax.Array]:
        """Return the batch with its weights, and their sum."""
        del step
        if self.balanced:
            weights = batch.weights * jnp.asarray(self.class_weights)[jnp.maximum(batch.labels, 0)]
            batch = batch._replace(weights=weights)
            return batch, jnp.maximum(jnp.sum(batch.weights), 1e-6)
        return batch, jnp.maximum(jnp.sum(batch.weights), 1.0)

    @functools.cached_property
    def class_weights(self) -> np.ndarray:
        """What an example of each class counts, float32 [C]: n / (C * its number), 0 for none."""
        assert self.data.train.labels is not None
        labels = np.concatenate([np.atleast_1d(label) for label in self.data.train.labels])
        counts = np.bincount(labels[labels >= 0], minlength=self.data.task.num_labels)
        return np.where(counts, counts.sum() / (len(counts) * np.maximum(counts, 1)), 0).astype(np.float32)

    def loss(
        self, params: Any, constants: Any, examples: Batch, total_weight: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Return the share of the mean cross entropy in nats, or of the mean squared error in variances."""
        logits = self.model.apply(
            {"params": params, "constants": constants},
            examples.input_ids,
            examples.attention_mask,
            examples.token_type_ids,
            deterministic=False,
            rngs={"dropout": key},
        )
        if self.record.kind == "regress":
            targets = (examples.labels - self.record.mean) / self.record.std
            return regression_loss(logits[..., 0], targets, examples.weights) / total_weight
        return classification_loss(logits, examples.labels, examples.weights) / total_weight

    @functools.cached_property
    def predict_step(self) -> Callable[[Any, Any, Batch], jax.Array]:
        """The jitted (params, constants, batch) -> float32 logits, a copy in every process."""
        return bert.make_predict_step(self.model, self.layout.replicated)

    def logits_of(self, params: Any, batch: Batch) -> jax.Array:
        """Return the logits of a batch of host arrays."""
        placed = jax.tree.map(lambda values: sharding.put_rows(values, self.layout, row_axis=0), batch)
        return self.predict_step(params, self.constants, placed)

    def evaluate(self, state: TrainState, beat: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Return dev_METRIC, of a second split dev_METRIC_mismatched, and `degenerate`.

        That is 1 where every example of a split gets the same class, else 0; `Degenerate` is raised where
        `on_degenerate` is "stop".
        """

        def logits_of(batch: Batch) -> jax.Array:
            beat()
            return self.logits_of(state.params, batch)

        figures: dict[str, float] = {}
        degenerate = False
        for number, (name, split) in enumerate(self.data.dev.items()):
            predictions = self.predictions(logits_of, split)
            suffix = "" if number == 0 else "_" + name.removeprefix("dev_")
            scores = self.scores(predictions, split)
            figures |= {f"dev_{metric}{suffix}": value for metric, value in scores.items()}
            degenerate |= self.is_degenerate(predictions)
        if degenerate and state.step:
            text = (
                f"step {state.step}: every development example gets the same class; nothing is learned yet."
            )
            if self.on_degenerate == "stop":
                raise Degenerate(text + " Lower the rate, train longer, or set config.on_degenerate=say.")
            print(text, flush=True)
        return figures | {"degenerate": float(degenerate)}

    def score(self, params: Any, split: Split) -> Scored:
        """Return what a model predicts for a split with labels, how good it is, and where it errs."""
        predictions = self.predictions(lambda batch: self.logits_of(params, batch), split)
        details = metrics.details(self.record.kind, self.record.labels, predictions, split.labels)
        return Scored(
            self._named(predictions), self._named(split.labels), self.scores(predictions, split), details
        )

    def _named(self, values: Any) -> list[Any]:
        """Return classes by name, or numbers, as JSON values."""
        if self.record.kind == "regress":
            return [float(value) for value in values]
        return [self.record.labels[value] for value in values]

    def predictions(self, logits_of: Callable[[Batch], Any], split: Split) -> Any:
        """Return a class or a number for every example in their order, [n]."""
        return decide(predict(logits_of, split, self.batch_size), self.record)

    def scores(self, predictions: Any, split: Split) -> Mapping[str, float]:
        """Return the task's metrics."""
        return metrics.scores(self.data.task.metrics, predictions, split.labels)

    def is_degenerate(self, predictions: Any) -> bool:
        """Whether every example gets the same class."""
        return self.record.kind != "regress" and metrics.degenerate(predictions)

    def majority(self, split: Split) -> Any:
        """Return the predictions that are always the training split's most frequent class, or its mean."""
        assert isinstance(self.data.train.labels, np.ndarray)
        return majority(self.data.train.labels, len(split.encoded))

    def majority_scores(self) -> Mapping[str, float]:
        """Return what a model has to beat before a score of the first development split means anything."""
        split = next(iter(self.data.dev.values()))
        return self.scores(self.majority(split), split)


def decide(logits: np.ndarray, record: TaskRecord) -> np.ndarray:
    """Return what metrics compare with labels: numbers of a regression in the labels' unit, else classes."""
    if record.kind == "regress":
        return logits[:, 0] * record.std + record.mean
    return np.argmax(logits, axis=-1)
