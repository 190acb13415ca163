"""Where every array lies: the device mesh, rules for parameters and slots, host rows as global arrays.

One code path for one CPU, eight GPUs and a pod. Rows are split over all axes of the mesh. Over "fsdp" the
parameters are split too; over the others they are copied. With ZeRO-1 the optimizer's slots are split over
"data", or where that is many devices over "slots", groups of them.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eelbert_jax.errors import UserError

DATA, SLOTS, FSDP = "data", "slots", "fsdp"
ROW_AXES = (DATA, FSDP)

RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"embeddings/\w+/embedding$", (None, FSDP)),  # [V, D], [positions, D], [types, D]: by width
    (r"decoder/kernel$", (None, FSDP)),  # [V, D]: by width, as V = 30,522 = 2 x 3 x 5087 splits badly
    (r"(kernel|projection)$", (FSDP, None)),  # [in, out]: by input
    (r"", ()),  # biases, LayerNorm: a copy everywhere
)
"""The first pattern found in a parameter's path says how its last axes are split. Leading axes (of layers
under `scan_layers`) are not."""

MIN_SPLIT_SIZE = 1 << 14
"""Smaller slots are not worth a collective of their own and stay whole under ZeRO-1."""


MOST_SLOT_SHARES = 16
"""Devices that share one copy of the slots under ZeRO-1. A TPU scatters what it reduces along one axis of its
slice, at most 16 chips; over 256 it reduces all of it everywhere and gathers besides."""

WHOLE_SHARES = {"tpu": (16, 128)}
"""Rows and columns of which a share has to be a multiple on a platform, its tiles of bfloat16; else any."""


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None, *, zero1: bool = False) -> Mesh:
    """Return the mesh ("data", "fsdp") of all devices; `fsdp` of them share one copy of the parameters.

    With ZeRO-1 and more than `MOST_SLOT_SHARES` along "data": ("data", "slots", "fsdp").
    """
    count = jax.device_count() if devices is None else len(devices)
    if fsdp < 1 or count % fsdp:
        raise UserError(f"mesh.fsdp={fsdp} does not divide the {count} devices; choose a divisor of {count}.")
    axes = {DATA: count // fsdp, FSDP: fsdp}
    if zero1 and axes[DATA] > MOST_SLOT_SHARES:
        shares = max(n for n in range(1, MOST_SLOT_SHARES + 1) if axes[DATA] % n == 0)
        axes = {DATA: axes[DATA] // shares, SLOTS: shares, FSDP: fsdp}
    types = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=types, devices=devices)


def make_layout(fsdp: int = 1, zero1: bool = False, devices: Sequence[jax.Device] | None = None) -> "Layout":
    """Return the layout on all devices, or on `devices`, which need not be here."""
    mesh = make_mesh(fsdp, devices, zero1=zero1)
    return Layout(mesh, zero1, WHOLE_SHARES.get(mesh.devices.flat[0].platform, (1, 1)))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Say where the arrays of a training step lie.

    With `zero1` the optimizer's slots, and the update's work, are split over "slots", or without such an axis
    over "data" (Rajbhandari et al. 2020). Slots whose shares would not be multiples of `whole_shares`, rows
    and columns, stay whole: they would be reduced whole and gathered besides.
    """

    mesh: Mesh
    zero1: bool = False
    whole_shares: tuple[int, int] = (1, 1)

    @property
    def replicated(self) -> NamedSharding:
        """A copy on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    def rows(self, row_axis: int) -> NamedSharding:
        """Return the sharding that splits axis `row_axis` over all devices."""
        return NamedSharding(self.mesh, PartitionSpec(*[None] * row_axis, self.mesh.axis_names))

    def params(self, params: Any) -> Any:
        """Return the tree of shardings of parameters (arrays or shape structs), by `RULES`."""
        return self._by_leaf(params, self._param_spec)

    def slots(self, tree: Any) -> Any:
        """Return the shardings of gradients, or of slots in the parameters' shapes."""
        return self._by_leaf(tree, self._slot_spec)

    def state(self, state: Any) -> Any:
        """Return the shardings of a `TrainState`; the path of a slot ends in its parameter's."""
        return state.replace(
            step=self.replicated, params=self.params(state.params), opt_state=self.slots(state.opt_state)
        )

    def _by_leaf(self, tree: Any, spec: Callable[[str, tuple[int, ...]], PartitionSpec]) -> Any:
        def sharding(path: Any, leaf: Any) -> NamedSharding:
            return NamedSharding(self.mesh, spec(_name(path), leaf.shape))

        return jax.tree_util.tree_map_with_path(sharding, tree)

    def _param_spec(self, name: str, shape: tuple[int, ...]) -> PartitionSpec:
        axes = next(axes for pattern, axes in RULES if re.search(pattern, name))
        fsdp = self.mesh.shape[FSDP]
        if fsdp == 1 or not axes:
            return PartitionSpec()
        padded = (None,) * (len(shape) - len(axes)) + axes
        if any(axis and size % fsdp for axis, size in zip(padded, shape, strict=True)):
            raise UserError(
                f"{name} of shape {shape} does not split over mesh.fsdp={fsdp} devices; choose a divisor of "
                "its width."
            )
        return PartitionSpec(*padded)

    def _slot_spec(self, name: str, shape: tuple[int, ...]) -> PartitionSpec:
        spec = self._param_spec(name, shape)
        split_over = SLOTS if SLOTS in self.mesh.shape else DATA
        shares = self.mesh.shape[split_over]
        if not self.zero1 or shares == 1 or np.prod(shape, dtype=np.int64) < MIN_SPLIT_SIZE:
            return spec
        axes = list(spec) + [None] * (len(shape) - len(spec))
        multiples = (*(1,) * len(shape), *self.whole_shares)[-len(shape) :]
        for number, (axis, size, multiple) in enumerate(zip(axes, shape, multiples, strict=True)):
            if axis is None and size % (shares * multiple) == 0:
                axes[number] = split_over
                return PartitionSpec(*axes)
        return spec  # no axis divides: a copy


def _name(path: Any) -> str:
    """Return a leaf's path as a/b/c; of an optimizer's slot only the keys of the parameters' dicts."""
    return "/".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))


def constrain(tree: Any, shardings: Any) -> Any:
    """Pin the leaves of `tree`, inside `jit`, to where `shardings` says."""
    return jax.tree.map(jax.lax.with_sharding_constraint, tree, shardings)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def with_gradient_at(array: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Return `array`, whose gradient of this use is pinned to `sharding` before those of others are added.

    Without it XLA folds the addition into this use's own sum (a scatter, say) over rows that are split: then
    the other gradient is reduced over the devices, added, and reduced again. Of two pinned sums it adds the
    parts first and reduces once.
    """
    del sharding
    return array


def _with_gradient_at_forward(array: jax.Array, sharding: NamedSharding) -> tuple[jax.Array, None]:
    del sharding
    return array, None


def _with_gradient_at_backward(sharding: NamedSharding, _: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (jax.lax.with_sharding_constraint(gradient, sharding),)


with_gradient_at.defvjp(_with_gradient_at_forward, _with_gradient_at_backward)


def placed(shapes: Any, shardings: Any) -> Any:
    """Return shape structs with their shardings, to compile or restore without arrays."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def global_array(
    read: Callable[[Any], np.ndarray], shape: tuple[int, ...], sharding: NamedSharding
) -> jax.Array:
    """Build a global array; each host calls `read` (slices -> values) for its own devices' parts alone."""
    return jax.make_array_from_callback(shape, sharding, read)


def put_rows(values: np.ndarray, layout: Layout, row_axis: int) -> jax.Array:
    """Return host values, the same in every process, as a global array split along `row_axis`."""
    return global_array(lambda index: values[index], values.shape, layout.rows(row_axis))


def check_divisible(name: str, rows: int, mesh: Mesh) -> None:
    """Raise a `UserError` unless `rows` split evenly over the mesh."""
    devices = mesh.devices.size
    if rows % devices:
        raise UserError(
            f"{name}={rows} rows do not split over {devices} devices; make it a multiple of {devices}."
        )


def num_passes(batch_size: int, rows_per_device: int | None, layout: Layout) -> int:
    """Return the passes that a batch takes, 1 where `rows_per_device` is None."""
    if rows_per_device is None:
        return 1
    devices = layout.mesh.devices.size
    rows = rows_per_device * devices
    if rows_per_device < 1 or batch_size % rows:
        raise UserError(
            f"batch_size={batch_size} is no multiple of rows_per_device={rows_per_device} x {devices} "
            "devices; change one of them."
        )
    return batch_size // rows
