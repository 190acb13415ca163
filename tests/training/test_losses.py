import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.training.losses import decoder_kl_loss, masked_lm_loss, masked_lm_sums

M, D, V = 24, 8, 101


def inputs(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 5)
    features = jax.random.normal(keys[0], (M, D), dtype)
    decoder = jax.random.normal(keys[1], (V, D))
    bias = jax.random.normal(keys[2], (V,))
    labels = jax.random.randint(keys[3], (M,), 0, V).at[:4].set(jnp.asarray([0, V - 1, 9, 10]))
    weights = jax.random.uniform(keys[4], (M,)).at[5].set(0.0)
    return features, decoder, bias, labels, weights


def plain(features, decoder, bias, labels, weights):
    """The definition, with all logits, in float64 on the host or under JAX."""
    logits = features @ decoder.T + bias[None]
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(weights * jnp.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0])


# Widths that tile V, leave a remainder of one, overlap almost wholly, and exceed V.
@pytest.mark.parametrize("chunk", [1, 10, 25, 51, 100, 101, 500])
def test_loss_and_gradients_are_those_of_the_definition(chunk):
    features, decoder, bias, labels, weights = inputs()
    wanted = jax.value_and_grad(plain, (0, 1, 2))(features, decoder, bias, labels, weights)
    got = jax.value_and_grad(masked_lm_loss, (0, 1, 2))(features, decoder, bias, labels, weights, chunk)
    # float32 sums over V in another order.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, wanted)
    value_alone = masked_lm_loss(features, decoder, bias, labels, weights, chunk)
    np.testing.assert_allclose(value_alone, wanted[0], rtol=1e-6)


def test_the_comparison_can_fail():
    features, decoder, bias, labels, weights = inputs()
    wrong = masked_lm_loss(features, decoder, bias, (labels + 1) % V, weights, 25)
    assert abs(float(wrong - plain(features, decoder, bias, labels, weights))) > 1.0


def test_gradient_scales_with_the_cotangent():
    args = inputs()
    once = jax.grad(masked_lm_loss)(*args, 25)
    thrice = jax.grad(lambda *a: 3.0 * masked_lm_loss(*a, 25))(*args)
    np.testing.assert_allclose(thrice, 3.0 * once, rtol=1e-6)


def test_bfloat16_features_give_float32_loss_near_the_definition():
    features, decoder, bias, labels, weights = inputs(jnp.bfloat16)
    wanted = plain(features.astype(jnp.float32), decoder, bias, labels, weights)
    got = masked_lm_loss(features, decoder, bias, labels, weights, 25)
    assert got.dtype == jnp.float32
    # The decoder is rounded to 8 bits of mantissa: 2^-9 relative, averaged over the targets.
    np.testing.assert_allclose(got, wanted, rtol=1e-2)


def test_no_logits_of_all_targets_exist():
    wide = 8192
    args = (
        jnp.zeros((512, D)),
        jnp.zeros((wide, D)),
        jnp.zeros((wide,)),
        jnp.zeros((512,), int),
        jnp.ones(512),
    )
    step = jax.jit(jax.value_and_grad(lambda *a: masked_lm_loss(*a, 256), (0, 1, 2)))
    temporary = step.lower(*args).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 512 * wide * 4 / 4


@pytest.mark.parametrize("chunk", [1, 10, 25, 101, 500])
def test_sums_for_evaluation(chunk):
    features, decoder, bias, _, weights = inputs()
    logits = features @ decoder.T + bias[None]
    best = jnp.argmax(logits, axis=-1)
    labels = jnp.where(jnp.arange(M) % 3 == 0, (best + 1) % V, best)
    sums = masked_lm_sums(features, decoder, bias, labels, weights, chunk)
    np.testing.assert_allclose(sums.loss, plain(features, decoder, bias, labels, weights), rtol=1e-5)
    np.testing.assert_allclose(sums.correct, jnp.sum(weights * (labels == best)), rtol=1e-6)
    np.testing.assert_allclose(sums.weight, jnp.sum(weights), rtol=1e-6)
    assert 0 < float(sums.correct) < float(sums.weight)


def plain_kl(student, teacher, weights):
    """The definition, with all logits."""
    log_probs, teacher_log_probs = (jax.nn.log_softmax(f @ d.T + b[None]) for f, d, b in (student, teacher))
    return jnp.sum(weights[:, None] * jnp.exp(teacher_log_probs) * (teacher_log_probs - log_probs))


@pytest.mark.parametrize("chunk", [25, 100, 500])
def test_the_divergence_of_two_decoders_is_that_of_the_definition(chunk):
    *student, _, weights = inputs()
    keys = jax.random.split(jax.random.key(1), 3)
    teacher = [jax.random.normal(key, shape) for key, shape in zip(keys, ((M, 5), (V, 5), (V,)), strict=True)]
    student, teacher = tuple(student), tuple(teacher)
    wanted = jax.value_and_grad(plain_kl)(student, teacher, weights)
    got = jax.value_and_grad(decoder_kl_loss)(student, teacher, weights, chunk)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), got, wanted)
    np.testing.assert_allclose(decoder_kl_loss(student, student, weights, chunk), 0.0, atol=1e-5)
    # Negative control: the divergence in the other direction.
    assert abs(float(plain_kl(teacher, student, weights)) - float(got[0])) > 1.0
