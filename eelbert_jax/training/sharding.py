"""The device mesh, and how host rows become global arrays.

One code path for one CPU, eight GPUs and a pod: `jit` over arrays with a `NamedSharding`.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from eelbert_jax.errors import UserError


def make_mesh() -> Mesh:
    """Return the mesh of all devices with the one axis "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of parameters and optimizer slots: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows_sharding(mesh: Mesh, row_axis: int) -> NamedSharding:
    """Return the sharding that splits axis `row_axis` over "data"."""
    return NamedSharding(mesh, PartitionSpec(*[None] * row_axis, "data"))


def global_array(
    read: Callable[[Any], np.ndarray], shape: tuple[int, ...], sharding: NamedSharding
) -> jax.Array:
    """Build a global array of which each host reads only what its own devices hold.

    Args:
      read: slices of the global array -> their values. Called for addressable devices only, so hosts read
        disjoint rows.
      shape: global shape.
      sharding: where the parts lie.
    """
    return jax.make_array_from_callback(shape, sharding, read)


def check_divisible(name: str, rows: int, mesh: Mesh) -> None:
    """Raise a `UserError` unless `rows` split evenly over the mesh."""
    devices = mesh.devices.size
    if rows % devices:
        raise UserError(
            f"{name}={rows} rows do not split over {devices} devices; make it a multiple of {devices}."
        )
