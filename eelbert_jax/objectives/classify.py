"""Fine-tuning on texts or pairs of texts: a class or a number for each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets import encoding, metrics
from eelbert_jax.datasets.baselines import majority
from eelbert_jax.datasets.splits import Batch, Split, TaskData, predict
from eelbert_jax.datasets.tasks import MULTILABEL, REGRESS, TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.model import bert
from eelbert_jax.model.heads import row_state
from eelbert_jax.objectives.examples import OnExamples
from eelbert_jax.objectives.to_teacher import mapped, with_map
from eelbert_jax.training.losses import (
    classification_loss,
    cosine_distance,
    distillation_loss,
    regression_loss,
)
from eelbert_jax.training.step import TrainState


class Degenerate(UserError):
    """The model predicts one class for every example, and the config says to stop then."""


class Scored(NamedTuple):
    """The predictions for a split and its labels, by name, with their scores and details."""

    predictions: list[Any]
    labels: list[Any]
    scores: Mapping[str, float]
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """What is learned of a fine-tuned model beside the labels.

    Attributes:
      model: where it is; None: there is none.
      weight: share of the loss that is the distance to its answers.
      temperature: of both softmaxes in that.
      hidden_weight: of 1 - the cosine of the last states of [CLS] to the teacher's, added to the loss.
      texts: table of more texts, without labels, that it answers.
      noise_percent: of their words, those that get an error each.
    """

    model: str | None = None
    weight: float = 0.5
    temperature: float = 1.0
    hidden_weight: float = 0.0
    texts: str | None = None
    noise_percent: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 1.0 or self.temperature <= 0.0 or self.hidden_weight < 0.0:
            raise UserError(
                f"teacher.weight={self.weight} must lie in [0, 1], teacher.temperature={self.temperature} "
                f"must be positive, and teacher.hidden_weight={self.hidden_weight} not negative."
            )
        if not 0.0 <= self.noise_percent <= 100.0:
            raise UserError(f"teacher.noise_percent must lie in [0, 100], got {self.noise_percent}.")
        if self.noise_percent and self.texts is None:
            raise UserError(
                "Errors are put into texts without labels: set --config.teacher.texts=FILE, the training "
                "file or another, or --config.teacher.noise_percent=0."
            )
        if self.model is None and self.hidden_weight:
            raise UserError(
                "States to learn need a teacher: set --config.teacher.model=DIR, or "
                "--config.teacher.hidden_weight=0."
            )
        if self.model is None and self.texts is not None:
            raise UserError("Texts without labels need a teacher: set --config.teacher.model=DIR.")


@dataclasses.dataclass(frozen=True, eq=False)
class Classify(OnExamples):
    """The objective of a fine-tuning on texts; see `training.step.Objective`.

    Attributes:
      record: what the model has to remember of the task; a regression learns standardized numbers.
      on_degenerate: what to do when an evaluation predicts one class alone: "say" or "stop".
      balanced: weigh examples (tags) so that all classes count alike.
      teacher: what of the answers and states in `train`, where there are any, is learned.
    """

    data: TaskData
    record: TaskRecord
    on_degenerate: str = "say"
    balanced: bool = False
    teacher: TeacherConfig = TeacherConfig()

    keeps_best: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.on_degenerate not in ("say", "stop"):
            raise UserError(f"on_degenerate={self.on_degenerate!r} is not one of say, stop.")
        super().__post_init__()
        if self.balanced and self.record.kind in (REGRESS, MULTILABEL):
            have = "are numbers" if self.record.kind == REGRESS else "come in any number a text"
            raise UserError(f"balanced=True weighs classes, and this task's labels {have}; leave it off.")
        if self.teacher.hidden_weight and self.record.pair_encoder == "bi":
            raise UserError(
                "teacher.hidden_weight is for texts and pairs in one row, got pair_encoder=bi; set it to 0."
            )

    @property
    def model(self) -> Any:
        """The module."""
        return bert.classifier(self.record.kind, self.record.pair_encoder)(self.config)

    def init(self, key: jax.Array) -> Any:
        """Return the first parameters."""
        params, states = super().init(key), self.train.teacher_states
        return params if states is None else with_map(params, self.config, states.shape[1], key)

    @property
    def main_figure(self) -> str:
        """The first metric of the task, on the first development split."""
        return f"dev_{self.data.task.metrics[0]}"

    def examples(self, batch: Batch, step: jax.Array) -> tuple[Batch, jax.Array]:
        """Return the batch with its weights, and their sum."""
        if not self.balanced:
            return super().examples(batch, step)
        weights = batch.weights * jnp.asarray(self.class_weights)[jnp.maximum(batch.labels, 0)]
        return batch._replace(weights=weights), jnp.maximum(jnp.sum(weights), 1e-6)

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
        """Return the share of the mean cross entropy in nats, or of the mean squared error in variances.

        With a teacher it is a mean of that and of the distance to its answers, weighted by `teacher.weight`,
        and the distance to its states.
        """
        if examples.teacher_states is None:
            return self._loss(self.outputs(params, constants, examples, key), examples, total_weight)
        outputs, states = self.outputs_and_states(params, constants, examples, key)
        row = row_state(self.config, states, examples.attention_mask)[:, None]
        ours = mapped(params, self.config, examples.teacher_states.shape[-1], row)
        distances = cosine_distance(ours, examples.teacher_states[:, None])
        to_states = jnp.sum(examples.weights * distances) / total_weight
        return self._loss(outputs, examples, total_weight) + self.teacher.hidden_weight * to_states

    def _loss(self, outputs: jax.Array, examples: Batch, total_weight: jax.Array) -> jax.Array:
        weights = examples.weights
        if examples.teacher is None:
            return self._distance(outputs, examples.labels, weights) / total_weight
        labelled = jnp.isfinite(examples.labels) & (examples.labels != encoding.IGNORED)
        labels = jnp.where(labelled, examples.labels, 0)
        to_labels = self._distance(outputs, labels, jnp.where(labelled, weights, 0.0))
        if self.record.kind == REGRESS:
            to_teacher = self._distance(outputs, examples.teacher[:, 0], weights)
        else:
            to_teacher = distillation_loss(outputs, examples.teacher, weights, self.teacher.temperature)
        share = self.teacher.weight
        return ((1 - share) * to_labels + share * to_teacher) / total_weight

    def _distance(self, outputs: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
        if self.record.kind == REGRESS:
            targets = (labels - self.record.mean) / self.record.std
            return regression_loss(outputs[..., 0], targets, weights)
        return classification_loss(outputs, labels, weights)

    def evaluate(self, state: TrainState, beat: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Return dev_METRIC, of a second split dev_METRIC_mismatched, and `degenerate`.

        That is 1 where every example of a split gets the same class, else 0; `Degenerate` is raised where
        `on_degenerate` is "stop".
        """

        def logits_of(batch: Batch) -> jax.Array:
            beat()
            return self.outputs_of(state.params, batch)

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
        predictions = self.predictions(lambda batch: self.outputs_of(params, batch), split)
        details = metrics.details(self.record.kind, self.record.labels, predictions, split.labels)
        return Scored(
            self._named(predictions), self._named(split.labels), self.scores(predictions, split), details
        )

    def _named(self, values: Any) -> list[Any]:
        """Return classes by name, or numbers, as JSON values."""
        if self.record.kind == REGRESS:
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
        return self.record.kind != REGRESS and metrics.degenerate(predictions)

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
    if record.kind == REGRESS:
        return logits[:, 0] * record.std + record.mean
    return np.argmax(logits, axis=-1)
