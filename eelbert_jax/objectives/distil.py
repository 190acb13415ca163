"""Distillation: a small model learns what a large one, its teacher, says of texts without labels."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets.splits import Batch, Split, predict
from eelbert_jax.model import bert
from eelbert_jax.objectives.examples import OnExamples
from eelbert_jax.training.losses import regression_loss
from eelbert_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class DistilEmbedding(OnExamples):
    """Learn a sentence encoder's vectors; see `training.step.Objective`.

    Attributes:
      heldout: sentences like those of `train`, with the teacher's unit vectors [n, S] for labels.
    """

    heldout: Split

    main_figure: ClassVar[str] = "heldout_cosine"
    keeps_best: ClassVar[bool] = False

    @property
    def model(self) -> bert.BertForSentenceEmbedding:
        """The module."""
        return bert.BertForSentenceEmbedding(self.config)

    def loss(
        self, params: Any, constants: Any, examples: Batch, total_weight: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Return the share of the mean squared distance to the teacher's vector: at the zero vector it is 1.

        The student's vector is not normalized, so that its length says how sure it is.
        """
        vectors = self.outputs(params, constants, examples, key)
        weights = jnp.broadcast_to(examples.weights[:, None], vectors.shape)
        return regression_loss(vectors, examples.labels.astype(jnp.float32), weights) / total_weight

    def evaluate(self, state: TrainState, beat: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Return the mean cosine of held-out sentences to the teacher, and the mean squared distance."""

        def vectors_of(batch: Batch) -> jax.Array:
            beat()
            return self.outputs_of(state.params, batch)

        vectors = predict(vectors_of, self.heldout, self.batch_size)
        teacher = np.asarray(self.heldout.labels, np.float32)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(teacher, axis=1)
        cosines = np.sum(vectors * teacher, axis=1) / np.maximum(lengths, 1e-12)
        distances = np.sum(np.square(vectors - teacher), axis=1)
        return {"heldout_cosine": float(cosines.mean()), "heldout_distance": float(distances.mean())}
