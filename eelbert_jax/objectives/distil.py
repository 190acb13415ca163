"""Distillation: a small model learns what a large one, its teacher, says of texts without labels."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets.splits import Batch, Split, predict
from eelbert_jax.errors import UserError
from eelbert_jax.model import bert
from eelbert_jax.objectives.examples import OnExamples
from eelbert_jax.training.losses import cosine_distance, regression_loss, similarity_distance
from eelbert_jax.training.step import TrainState


@dataclasses.dataclass(frozen=True)
class EmbeddingTerms:
    """What of a teacher's vectors is learned; a weight of 0 leaves its term out.

    Attributes:
      distance_weight: of the squared distance to the teacher's vector, 1 at the zero vector. The student's
        is not normalized, so that its length says how sure it is.
      cosine_weight: of 1 - the cosine to the teacher's vector.
      similarity_weight: of the squared differences of the cosines of all pairs of a pass, as a share of
        the teacher's squared. Source: similarity-preserving distillation, Tung and Mori (2019).
    """

    distance_weight: float = 1.0
    cosine_weight: float = 0.0
    similarity_weight: float = 0.0

    def __post_init__(self) -> None:
        weights = dataclasses.astuple(self)
        if min(weights) < 0 or not any(weights):
            raise UserError(
                f"Of the weights of --config.loss none may be negative and one has to be positive, got "
                f"{', '.join(map(str, weights))}."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class DistilEmbedding(OnExamples):
    """Learn a sentence encoder's vectors; see `training.step.Objective`.

    Attributes:
      heldout: sentences like those of `train`, with the teacher's unit vectors [n, S] for labels.
      terms: what of the vectors is learned.
    """

    heldout: Split
    terms: EmbeddingTerms = EmbeddingTerms()

    main_figure: ClassVar[str] = "heldout_cosine"
    keeps_best: ClassVar[bool] = False

    @property
    def model(self) -> bert.BertForSentenceEmbedding:
        """The module."""
        return bert.BertForSentenceEmbedding(self.config)

    def loss(
        self, params: Any, constants: Any, examples: Batch, total_weight: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Return the weighted sum of the terms, each a mean over the sentences."""
        ours, theirs = self.outputs(params, constants, examples, key), examples.labels.astype(jnp.float32)
        terms, weights, loss = self.terms, examples.weights, jnp.zeros(())
        if terms.distance_weight:
            each = jnp.broadcast_to(weights[:, None], ours.shape)
            loss += terms.distance_weight * regression_loss(ours, theirs, each)
        if terms.cosine_weight:
            distances = cosine_distance(ours[:, None], theirs[:, None])
            loss += terms.cosine_weight * jnp.sum(weights * distances)
        if terms.similarity_weight:
            share = similarity_distance(ours, theirs, weights)
            loss += terms.similarity_weight * jnp.sum(weights) * share
        return loss / total_weight

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
