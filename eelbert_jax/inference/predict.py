"""From texts to a model's answers: classes, scores, tags, and words for [MASK]; compiled once a length.

Leaves where texts come from and how answers look to the jobs.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eelbert_jax.datasets.encoding import Encoded, encode_texts, encode_words, eval_batches, gather
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import Finetuned, Pretrained
from eelbert_jax.model import bert
from eelbert_jax.objectives.classify import make_predict_step
from eelbert_jax.objectives.examples import Split, predict, predict_words
from eelbert_jax.vocabulary import make_tokenizer

MASKED_ROWS = 8
"""Rows a batch of masked texts: each mask has a probability for every token of the vocabulary."""

Guesses = list[tuple[str, float]]
"""Tokens with their probabilities, the most probable first."""


class Classifier:
    """Ask a fine-tuned model, `batch_size` texts at a time."""

    def __init__(self, model: Finetuned, batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        self._step = make_predict_step(bert.BertForSequenceClassification(model.config), device)

    def logits(self, first: Sequence[str], second: Sequence[str] | None) -> np.ndarray:
        """Return the outputs for texts or pairs of texts in their order, float32 [n, max(labels, 1)]."""
        model = self._model
        encoded = encode_texts(first, second, model.vocabulary, model.max_length, model.lowercase)
        return predict(
            lambda batch: self._step(model.params, model.constants, batch),
            Split(encoded, None),
            self._batch_size,
        )


class Tagger:
    """Ask a model that was fine-tuned to tag words, `batch_size` sentences at a time."""

    def __init__(self, model: Finetuned, batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        self._step = make_predict_step(bert.BertForTokenClassification(model.config), device)

    def probabilities(self, sentences: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Return for every sentence the probabilities of its words' tags, float64 [words, tags].

        A sentence longer than the model reads has fewer rows than words: the last words have none.
        """
        model = self._model
        encoded = encode_words(sentences, model.vocabulary, model.max_length, model.lowercase)
        found = predict_words(
            lambda batch: self._step(model.params, model.constants, batch),
            Split(encoded, None),
            self._batch_size,
        )
        return [probabilities(logits) for logits in found]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over classes, float64 [n, C]."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


class MaskFiller:
    """Ask a pre-trained model for the words that [MASK] stands for.

    Args:
      model: as its run left it.
      count: tokens a mask.

    Raises:
      UserError: `count` is not in 1..V.
    """

    def __init__(self, model: Pretrained, count: int) -> None:
        if not 1 <= count <= model.vocabulary.size:
            raise UserError(f"Asked for {count} tokens a mask; take 1 to {model.vocabulary.size}.")
        self._config, self._vocabulary = model.config, model.vocabulary
        self._tokenizer = make_tokenizer(model.vocabulary, model.lowercase, special_tokens=True)
        self._variables = {"params": model.params, "constants": model.constants}
        self._step = functools.partial(_best_tokens, bert.BertForMaskedLM(model.config), count)

    def guesses(self, texts: Sequence[str]) -> list[list[Guesses]]:
        """Return for each text, in order, for each of its [MASK] the most probable tokens.

        Raises:
          UserError: a text has no [MASK], or is longer than the model reads.
        """
        encoded = self._encode(texts)
        found: list[list[Guesses]] = [[] for _ in texts]
        for batch in eval_batches(encoded, MASKED_ROWS):
            input_ids, attention_mask, _ = gather(encoded, batch.indices, batch.length)
            masked = [np.flatnonzero(row == self._vocabulary.mask_id) for row in input_ids]
            # A power of two, so that few programs are compiled.
            width = 1 << (max(map(len, masked)) - 1).bit_length()
            positions = np.stack([np.resize(row, width) for row in masked]).astype(np.int32)
            shares, tokens = jax.device_get(self._step(self._variables, input_ids, attention_mask, positions))
            for row in np.flatnonzero(batch.weights):
                found[batch.indices[row]] = [
                    self._named(tokens[row, place], shares[row, place]) for place in range(len(masked[row]))
                ]
        return found

    def _named(self, tokens: np.ndarray, shares: np.ndarray) -> Guesses:
        return [(self._vocabulary.tokens[i], float(share)) for i, share in zip(tokens, shares, strict=True)]

    def _encode(self, texts: Sequence[str]) -> Encoded:
        """Encode with "[MASK]" read as the token; nothing is cut, since a mask might be what goes."""
        vocabulary, longest = self._vocabulary, self._config.max_position_embeddings
        ids = []
        for text in texts:
            words = self._tokenizer.encode(text).ids
            masks = words.count(vocabulary.mask_id)
            if not masks or len(words) + 2 > longest:
                shown = text if len(text) <= 80 else text[:77] + "..."
                raise UserError(
                    f"{shown!r} must have a [MASK] and at most {longest} tokens; it has {masks} and "
                    f"{len(words) + 2}."
                )
            ids.append(np.array([vocabulary.cls_id, *words, vocabulary.sep_id], np.int32))
        lengths = np.array([[len(row), 0] for row in ids], np.int32)
        return Encoded(tuple(ids), lengths, longest, vocabulary.pad_id, num_truncated=0, num_empty=0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _best_tokens(
    model: bert.BertForMaskedLM,
    count: int,
    variables: Any,
    input_ids: jax.Array,
    attention_mask: jax.Array,
    positions: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return probabilities float32 and ids int32 of the best tokens at some positions, both [B, P, count]."""
    inputs: Any = model.apply(variables, input_ids, positions, attention_mask, method=model.decoder_inputs)
    features, decoder, bias = inputs
    logits = jnp.einsum(
        "bpd,vd->bpv", features, decoder.astype(features.dtype), preferred_element_type=jnp.float32
    )
    shares, tokens = jax.lax.top_k(jax.nn.softmax(logits + bias[None, None, :]), count)
    return shares, tokens
