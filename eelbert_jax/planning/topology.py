"""Devices that are not here: the TPU slices that libtpu compiles for. The only importer of `topologies`."""

import importlib.util
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from eelbert_jax.errors import UserError

ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # ask no metadata server: this is no Cloud machine
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # has to be some; the topology's name decides
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is opened, so plans may run beside each other
}
"""What libtpu reads when it starts, unless it is set already."""

EXAMPLES = "v5e:2x4, v5e:16x16, v6e:16x16, v5p:4x4x4"


def tpu_devices(topology: str) -> Sequence[jax.Device]:
    """Return the devices of a TPU slice that is not here: to compile for, not to run on.

    Args:
      topology: generation, colon, chips along each axis: "v5e:16x16".

    Raises:
      UserError: libtpu is not installed, or knows no such slice.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"Planning for {topology} takes the TPU compiler, libtpu (0.7 GB), which is not installed; "
            "run pip install 'eelbert_jax[tpu-plan]'. It needs no TPU."
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"libtpu cannot compile for the topology {topology!r}: {' '.join(str(error).split())[:300]} "
            f"Name a generation and the chips along each axis, for example {EXAMPLES}."
        ) from error


def slice_shape(devices: Sequence[jax.Device]) -> tuple[int, ...]:
    """Return the chips along each axis of the slice that `devices` fill; (n,) where they have no place."""
    if not hasattr(devices[0], "coords"):
        return (len(devices),)
    extents = [max(axis) - min(axis) + 1 for axis in zip(*(d.coords for d in devices), strict=True)]
    return tuple(extent for extent in extents if extent > 1) or (1,)
