"""Losses as weighted sums, divided once by whoever reports them."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

NEGATIVE = -1e30
"""Stands for minus infinity where an infinity would turn into NaN by subtraction."""


class MaskedLMSums(NamedTuple):
    """What evaluation sums over targets: float32 scalars."""

    loss: jax.Array
    correct: jax.Array
    weight: jax.Array


def _slices(vocab_size: int, vocab_chunk: int) -> tuple[int, jax.Array]:
    """Return the slice width C and the starts of the slices that cover 0..V-1.

    The slices tile the vocabulary from 0; the last one is moved back to end at V and comes FIRST, so that
    the slice it overlaps overwrites, not adds to, what it wrote. No padded copy of the decoder is needed.
    """
    width = min(vocab_chunk, vocab_size)
    starts = [vocab_size - width, *range(0, vocab_size - width, width)]
    return width, jnp.asarray(starts, jnp.int32)


def _slice_logits(features, decoder, bias, start, width):
    """Return float32 logits [M, C] of one slice; columns that a later slice covers are NEGATIVE."""
    vocab_size = decoder.shape[0]
    rows = jax.lax.dynamic_slice_in_dim(decoder, start, width).astype(features.dtype)
    offsets = jax.lax.dynamic_slice_in_dim(bias, start, width).astype(jnp.float32)
    tiled = (vocab_size - 1) // width * width if vocab_size > width else 0
    own = (start != vocab_size - width) | (start + jnp.arange(width) >= tiled)
    offsets = jnp.where(own, offsets, NEGATIVE)
    logits = jnp.einsum("md,vd->mv", features, rows, preferred_element_type=jnp.float32)
    return rows, jnp.where(own[None], logits, 0.0) + offsets[None]


def _log_normalizer(features, decoder, bias, vocab_chunk):
    """Return (logsumexp [M], maximum [M]) of the logits, float32, by the online-softmax recurrence."""
    width, starts = _slices(decoder.shape[0], vocab_chunk)

    def body(carry, start):
        maximum, total = carry
        _, logits = _slice_logits(features, decoder, bias, start, width)
        new = jnp.maximum(maximum, jnp.max(logits, axis=-1))
        total = total * jnp.exp(maximum - new) + jnp.sum(jnp.exp(logits - new[:, None]), axis=-1)
        return (new, total), None

    start = (jnp.full(features.shape[:1], NEGATIVE, jnp.float32), jnp.zeros(features.shape[:1], jnp.float32))
    (maximum, total), _ = jax.lax.scan(body, start, starts)
    return maximum + jnp.log(total), maximum


def _label_logits(features, decoder, bias, labels):
    rows = decoder[labels].astype(features.dtype)
    return rows, jnp.einsum("md,md->m", features, rows, preferred_element_type=jnp.float32) + bias[labels]


def _loss_and_gradients(features, decoder, bias, labels, weights, vocab_chunk):
    width, starts = _slices(decoder.shape[0], vocab_chunk)
    normalizer, _ = _log_normalizer(features, decoder, bias, vocab_chunk)
    _, label_logits = _label_logits(features, decoder, bias, labels)
    loss = jnp.sum(weights * (normalizer - label_logits))

    def body(gradients, start):
        rows, logits = _slice_logits(features, decoder, bias, start, width)
        own = logits > NEGATIVE / 2
        is_label = (labels[:, None] == start + jnp.arange(width)[None]) & own
        d_logits = (jnp.exp(logits - normalizer[:, None]) - is_label) * weights[:, None]
        return _with_slice(gradients, start, d_logits, rows, features), None

    gradients, _ = jax.lax.scan(body, _zero_gradients(features, decoder, bias), starts)
    return loss, _as_typed(gradients, features, decoder, bias)


def _zero_gradients(*decoder_inputs):
    return tuple(jnp.zeros(array.shape) for array in decoder_inputs)


def _with_slice(gradients, start, d_logits, rows, features):
    """Add the features' gradient of a slice, and put the decoder's and the bias's in their places."""
    d_features, d_decoder, d_bias = gradients
    d_bias = jax.lax.dynamic_update_slice_in_dim(d_bias, jnp.sum(d_logits, axis=0), start, 0)
    d_logits = d_logits.astype(features.dtype)
    d_features += jnp.einsum("mv,vd->md", d_logits, rows, preferred_element_type=jnp.float32)
    d_rows = jnp.einsum("mv,md->vd", d_logits, features, preferred_element_type=jnp.float32)
    return d_features, jax.lax.dynamic_update_slice_in_dim(d_decoder, d_rows, start, 0), d_bias


def _as_typed(gradients, *decoder_inputs):
    return tuple(
        gradient.astype(array.dtype) for gradient, array in zip(gradients, decoder_inputs, strict=True)
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def masked_lm_loss(
    features: jax.Array,
    decoder: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    vocab_chunk: int,
) -> jax.Array:
    """Return the weighted sum of the cross entropies of the decoder's softmax, without [M, V] logits.

    V = 30,522 logits a target are where a small BERT spends its time: so the gradient is computed in the
    forward pass, slice by slice of the vocabulary: a second matrix product for the logits costs less than
    writing and reading them. Online softmax: Milakov & Gimelshein (2018).

    Args:
      features: [M, D], float32 or bfloat16.
      decoder: [V, D].
      bias: [V].
      labels: int32 [M], each in 0..V-1.
      weights: float32 [M]; divide by their sum for the mean in nats, float32.
      vocab_chunk: columns of the vocabulary at a time; V or more means all at once.
    """
    chex.assert_rank([features, decoder, bias, labels, weights], [2, 2, 1, 1, 1])
    normalizer, _ = _log_normalizer(features, decoder, bias, vocab_chunk)
    _, label_logits = _label_logits(features, decoder, bias, labels)
    return jnp.sum(weights * (normalizer - label_logits))


def _forward(features, decoder, bias, labels, weights, vocab_chunk):
    return _loss_and_gradients(features, decoder, bias, labels, weights, vocab_chunk)


def _backward(vocab_chunk, gradients, cotangent):
    del vocab_chunk
    scaled = [(cotangent * gradient).astype(gradient.dtype) for gradient in gradients]
    return (*scaled, None, None)


masked_lm_loss.defvjp(_forward, _backward)


DecoderInputs = tuple[jax.Array, jax.Array, jax.Array]
"""Features [M, D], decoder [V, D] and bias [V], as `masked_lm_loss` takes them."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def decoder_kl_loss(
    student: DecoderInputs, teacher: DecoderInputs, weights: jax.Array, vocab_chunk: int
) -> jax.Array:
    """Return the weighted sum of KL(teacher || student) of two decoders' softmaxes, without [M, V] logits.

    Widths may differ. Float32 scalar in nats; `weights` and `vocab_chunk` as `masked_lm_loss` takes them.
    No gradient reaches the teacher.
    """
    return _kl_and_gradients(student, teacher, weights, vocab_chunk)[0]


def _kl_and_gradients(student, teacher, weights, vocab_chunk):
    chex.assert_equal_shape([student[1][:, 0], teacher[1][:, 0]])
    width, starts = _slices(student[1].shape[0], vocab_chunk)
    normalizer, _ = _log_normalizer(*student, vocab_chunk)
    teacher_normalizer, _ = _log_normalizer(*teacher, vocab_chunk)

    def body(carry, start):
        loss, gradients = carry
        rows, logits = _slice_logits(*student, start, width)
        _, teacher_logits = _slice_logits(*teacher, start, width)
        log_probs = logits - normalizer[:, None]
        teacher_log_probs = teacher_logits - teacher_normalizer[:, None]
        teacher_probs = jnp.exp(teacher_log_probs)  # 0 in columns of another slice
        loss += jnp.sum(weights[:, None] * teacher_probs * (teacher_log_probs - log_probs))
        d_logits = (jnp.exp(log_probs) - teacher_probs) * weights[:, None]
        return (loss, _with_slice(gradients, start, d_logits, rows, student[0])), None

    (loss, gradients), _ = jax.lax.scan(body, (jnp.zeros(()), _zero_gradients(*student)), starts)
    return loss, _as_typed(gradients, *student)


def _kl_backward(vocab_chunk, gradients, cotangent):
    del vocab_chunk
    return tuple((cotangent * gradient).astype(gradient.dtype) for gradient in gradients), None, None


decoder_kl_loss.defvjp(_kl_and_gradients, _kl_backward)


def attention_distance(probs: jax.Array, teacher_probs: jax.Array) -> jax.Array:
    """Return KL(teacher || student) of attention, the mean over heads, queries and keys, float32 [B].

    So it is a query's KL over L, as published (the reduction "mean" of MiniALBERT's code). Float32
    [B, H, L, L] of rows without padding. Source: MiniALBERT section 3.
    """
    chex.assert_equal_shape([probs, teacher_probs])
    teacher_probs += 1e-12
    terms = teacher_probs * (jnp.log(teacher_probs) - jnp.log(probs + 1e-12))
    return jnp.mean(terms, axis=(1, 2, 3))


def cosine_distance(states: jax.Array, teacher_states: jax.Array) -> jax.Array:
    """Return the mean over tokens of 1 - cosine of states [B, L, D], float32 [B]."""
    chex.assert_equal_shape([states, teacher_states])
    states, teacher_states = (each.astype(jnp.float32) for each in (states, teacher_states))
    squares = [jnp.sum(jnp.square(each), axis=-1) + 1e-12 for each in (states, teacher_states)]
    cosines = jnp.sum(states * teacher_states, axis=-1) * jax.lax.rsqrt(squares[0] * squares[1])
    return jnp.mean(1.0 - cosines, axis=-1)


def similarity_distance(vectors: jax.Array, teacher_vectors: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the squared differences of the cosines of all pairs, as a share of the teacher's squared.

    Float32 scalar of vectors [B, S] and [B, T], of any lengths; `weights` [B] are 0 for rows without one.
    Source: similarity-preserving knowledge distillation, Tung and Mori (2019), without a row's cosine with
    itself.
    """
    chex.assert_equal_shape_prefix([vectors, teacher_vectors, weights], 1)
    pairs = weights[:, None] * weights * (1.0 - jnp.eye(len(weights)))
    ours, theirs = (_cosines(each.astype(jnp.float32)) for each in (vectors, teacher_vectors))
    squares = jnp.sum(pairs * jnp.square(theirs))
    return jnp.sum(pairs * jnp.square(ours - theirs)) / jnp.maximum(squares, 1e-12)


def _cosines(vectors: jax.Array) -> jax.Array:
    units = vectors * jax.lax.rsqrt(jnp.sum(jnp.square(vectors), axis=-1, keepdims=True) + 1e-12)
    return units @ units.T


def squared_distance(states: jax.Array, teacher_states: jax.Array) -> jax.Array:
    """Return the mean squared difference of states [B, L, D], float32 [B]."""
    chex.assert_equal_shape([states, teacher_states])
    return jnp.mean(jnp.square(states.astype(jnp.float32) - teacher_states), axis=(1, 2))


def masked_lm_sums(
    features: jax.Array,
    decoder: jax.Array,
    bias: jax.Array,
    labels: jax.Array,
    weights: jax.Array,
    vocab_chunk: int,
) -> MaskedLMSums:
    """Sum loss, correct predictions (one of equal logits counts) and weights; args as `masked_lm_loss`."""
    chex.assert_rank([features, decoder, bias, labels, weights], [2, 2, 1, 1, 1])
    normalizer, _ = _log_normalizer(features, decoder, bias, vocab_chunk)
    width, starts = _slices(decoder.shape[0], vocab_chunk)

    def body(carry, start):
        best, best_id, label_logits = carry
        _, logits = _slice_logits(features, decoder, bias, start, width)
        peak = jnp.max(logits, axis=-1)
        column = labels - start
        inside = (column >= 0) & (column < width)
        picked = jnp.take_along_axis(logits, jnp.clip(column, 0, width - 1)[:, None], axis=1)[:, 0]
        label_logits = jnp.where(inside & (picked > NEGATIVE / 2), picked, label_logits)
        best_id = jnp.where(peak > best, start + jnp.argmax(logits, axis=-1), best_id)
        return (jnp.maximum(best, peak), best_id, label_logits), None

    lowest = jnp.full(labels.shape, NEGATIVE, jnp.float32)
    (_, best_id, label_logits), _ = jax.lax.scan(body, (lowest, jnp.zeros_like(labels), lowest), starts)
    correct = jnp.sum(weights * (best_id == labels))
    return MaskedLMSums(jnp.sum(weights * (normalizer - label_logits)), correct, jnp.sum(weights))


def classification_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted sum of the cross entropies of float32 logits [..., C], float32 scalar in nats.

    Labels are int32 [...], in 0..C-1 where their weight (float32 [...]) is not 0.
    """
    chex.assert_equal_shape([labels, weights])
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(weights * picked)


def distillation_loss(
    logits: jax.Array, teacher_logits: jax.Array, weights: jax.Array, temperature: float
) -> jax.Array:
    """Return the weighted sum of T^2 KL(teacher || student), float32 scalar in nats.

    Both are softmaxes at temperature T of float32 logits [..., C], weights are [...]; T^2 keeps the size of
    the gradient. Source: Hinton et al. 2015.
    """
    chex.assert_equal_shape([logits, teacher_logits])
    teacher = jax.nn.log_softmax(teacher_logits / temperature)
    student = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * jnp.sum(weights * jnp.sum(jnp.exp(teacher) * (teacher - student), axis=-1))


def multilabel_loss(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted sum of the examples' mean binary cross entropies, float32 scalar in nats.

    Logits are float32 [B, C], labels 0 or 1 [B, C], weights float32 [B].
    """
    chex.assert_equal_shape([logits, labels])
    losses = optax.sigmoid_binary_cross_entropy(logits, labels)
    return jnp.sum(weights * jnp.mean(losses, axis=-1))


def regression_loss(predictions: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Return the weighted sum of squared errors, float32 scalar, of float32 [B] each."""
    chex.assert_equal_shape([predictions, targets, weights])
    return jnp.sum(weights * jnp.square(predictions - targets))
