"""The learning-rate schedule and the AdamW chain of BERT; says what is decayed."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eelbert_jax.errors import UserError

NOT_DECAYED = ("bias", "LayerNorm")
"""Path words of parameters without weight decay. Source: Devlin et al., `optimization.py` of the release."""

DECAYS = ("linear", "cosine")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up and linear decay. Source: EELBERT section 4 and Devlin et al. A.2.

    Attributes:
      decay: of the rate after the warm-up, "linear" or "cosine".
      final_percent: of the peak, the rate at the last step.
      weight_decay: decoupled, a share of the learning rate a step; none on biases and LayerNorm.
      max_grad_norm: clip the global gradient norm here; 0 turns clipping off.
      layer_decay: the rate of a layer is that of the one above times this, in (0, 1]; heads have the full
        rate, embeddings the lowest. Source: Howard & Ruder 2018; ELECTRA for the factor.
      trainable: a pattern over parameter paths ("classifier|layer_1/"): others stay as they are and have no
        slots; empty: all are trained.
    """

    learning_rate: float = 1e-4
    warmup_steps: int = 10_000
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    max_grad_norm: float = 1.0
    layer_decay: float = 1.0
    trainable: str = ""
    decay: str = "linear"
    final_percent: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise UserError(f"opt.learning_rate must be positive, got {self.learning_rate}.")
        if self.warmup_steps < 0 or self.weight_decay < 0 or self.max_grad_norm < 0:
            raise UserError("opt.warmup_steps, opt.weight_decay and opt.max_grad_norm must not be negative.")
        if not (0.0 <= self.beta1 < 1.0 and 0.0 <= self.beta2 < 1.0 and self.epsilon > 0.0):
            raise UserError(
                f"opt.beta1={self.beta1} and opt.beta2={self.beta2} must lie in [0, 1), and "
                f"opt.epsilon={self.epsilon} must be positive."
            )
        if not 0.0 < self.layer_decay <= 1.0:
            raise UserError(f"opt.layer_decay must lie in (0, 1], got {self.layer_decay}.")
        if self.decay not in DECAYS or not 0.0 <= self.final_percent <= 100.0:
            raise UserError(
                f"opt.decay={self.decay!r} must be one of {', '.join(DECAYS)}, and opt.final_percent="
                f"{self.final_percent} lie in [0, 100]."
            )
        try:
            re.compile(self.trainable)
        except re.error as error:
            raise UserError(f"opt.trainable={self.trainable!r} is no pattern: {error}.") from error


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Return step -> learning rate: linear from 0 to the peak, then down to the final one at the end."""
    if config.warmup_steps > total_steps:
        raise UserError(
            f"opt.warmup_steps={config.warmup_steps} exceeds total_steps={total_steps}; lower the warm-up."
        )
    peak, share, steps = config.learning_rate, config.final_percent / 100, total_steps - config.warmup_steps
    if config.decay == "cosine" and steps:
        down = optax.schedules.cosine_decay_schedule(peak, steps, alpha=share)
    else:
        down = optax.schedules.linear_schedule(peak, share * peak, steps)
    warmup = optax.schedules.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.schedules.join_schedules([warmup, down], [config.warmup_steps])


def decay_mask(params) -> object:
    """Return the tree of bools saying which parameters are decayed."""

    def decayed(path, _) -> bool:
        return not any(key.key in NOT_DECAYED for key in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def clip_by_given_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """Scale gradients down to `max_norm` where their global norm, handed to `update`, is larger.

    `optax.clip_by_global_norm` computes it again: on a CPU a third of the time of AdamW over a large table.
    """

    def update(updates, state, params=None, *, grad_norm: jax.Array, **_):
        factor = jnp.minimum(1.0, max_norm / grad_norm)
        return jax.tree.map(lambda leaf: leaf * factor, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformationExtraArgs:
    """Return clipping (if any) and AdamW; its `update` takes the gradients' global norm as `grad_norm`."""
    adamw = optax.adamw(
        learning_rate_schedule(config, total_steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    # Slots of one structure with and without clipping, so that a run may change it when it is resumed.
    clip = clip_by_given_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity()
    if config.layer_decay != 1.0:
        adamw = optax.chain(adamw, scale_by_depth(config.layer_decay))
    chain = optax.chain(clip, adamw)
    if not config.trainable:
        return chain

    def labels(params: Any) -> Any:
        return jax.tree.map(lambda trained: "trained" if trained else "frozen", trained(config, params))

    return optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, labels)


def trained(config: OptimizerConfig, params: Any) -> Any:
    """Return the tree of bools saying which parameters are trained.

    Raises:
      UserError: the pattern, or one of its alternatives, is in no path.
    """

    def matching(pattern: str) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: re.search(pattern, _path(path)) is not None, params
        )

    for pattern in _alternatives(config.trainable):
        if not any(jax.tree.leaves(matching(pattern))):
            raise UserError(
                f"opt.trainable={config.trainable!r}: {pattern!r} is in no parameter's path; such a path is "
                "bert/encoder/layer_0/attention/self/query/kernel. A model without adapters or pooler has no "
                "parameters of theirs."
            )
    return matching(config.trainable)


def _alternatives(pattern: str) -> list[str]:
    """Return the patterns of "one|other", each of which has to be found somewhere; else the whole pattern."""
    parts = pattern.split("|")
    try:
        for part in parts:
            re.compile(part)
    except re.error:
        return [pattern]
    return parts


def scale_by_depth(decay: float) -> optax.GradientTransformation:
    """Scale updates by `decay` for every layer that stands between a parameter and the heads."""

    def factor(path: Any, leaf: jax.Array, num_layers: int) -> Any:
        name = _path(path)
        layer = re.search(r"encoder/layer_(\d+)/", name)
        if layer is not None:
            return decay ** (num_layers - int(layer[1]))
        if "encoder/layer/" in name:  # stacked on axis 0
            depths = num_layers - jnp.arange(num_layers)
            return jnp.power(decay, depths).reshape(-1, *[1] * (leaf.ndim - 1))
        return decay ** (num_layers + 1) if "/embeddings/" in name else 1.0

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        paths = [(_path(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(updates)]
        found = [re.search(r"encoder/layer_(\d+)/", name) for name, _ in paths]
        layers = [int(match[1]) + 1 for match in found if match]
        stacked = [leaf.shape[0] for name, leaf in paths if "encoder/layer/" in name]
        num_layers = max(layers + stacked)
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * factor(path, leaf, num_layers), updates
        )
        return scaled, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _path(path: Any) -> str:
    return "/".join(str(key.key) for key in path)


def num_updates(opt_state: optax.OptState) -> jax.Array:
    """Return the updates that the slots have seen, int32 scalar: skipped steps do not count."""
    [(_, count)] = optax.tree.get_all_with_path(
        opt_state, "count", lambda path, _: getattr(path[-1], "tuple_name", "") == "ScaleByAdamState"
    )
    return count
