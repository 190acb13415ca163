"""Devices that are not here: TPU slices and GPUs to compile for. The only importer of `topologies`."""

import importlib.util
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from eelbert_jax.errors import UserError
from eelbert_jax.planning.gpus import GPUS

TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # ask no metadata server: this is no Cloud machine
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # has to be some; the topology's name decides
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is opened, so plans may run beside each other
}
"""What libtpu reads when it starts, unless it is set already."""

HELP = (
    "Name a TPU generation and the chips along each axis, for example v5e:2x4, v5e:16x16, v6e:16x16 or "
    f"v5p:4x4x4; or GPUs of one host and their number: {', '.join(f'{kind}:8' for kind in GPUS)}."
)

GPU_PACKAGES = ("jax_cuda13_plugin", "nvidia", "nvidia.cu13")
"""JAX's plugin and NVIDIA's assembler; a package stands before what is inside it."""

MOST_GPUS = 8
"""Of one host; what lies between hosts is not known here."""

GPU_FLAG = "--xla_gpu_autotune_level=0"
"""Choose no kernel by running it: there is nothing to run it on."""


def absent_devices(topology: str) -> Sequence[jax.Device]:
    """Return devices that are not here: to compile for, not to run on.

    Args:
      topology: "v5e:16x16", a TPU slice, or "h200:8", so many GPUs of one host.

    Raises:
      UserError: the compiler is not installed, or knows no such devices.
    """
    gpus = re.fullmatch(rf"({'|'.join(GPUS)}):([1-9]\d*)", topology)
    if gpus:
        return _gpu_devices(gpus[1], int(gpus[2]))
    if not re.match(r"v\d", topology):
        raise UserError(f"Cannot plan for the topology {topology!r}. {HELP}")
    return _tpu_devices(topology)


def _gpu_devices(kind: str, number: int) -> Sequence[jax.Device]:
    if number > MOST_GPUS:
        raise UserError(f"Cannot plan for {number} GPUs: a host has up to {MOST_GPUS}. {HELP}")
    if any(importlib.util.find_spec(name) is None for name in GPU_PACKAGES):
        raise UserError(
            f"Planning for {kind}:{number} takes JAX's plugin for CUDA and NVIDIA's assembler (0.7 GB), "
            "which are not installed; run pip install 'eelbert_jax[gpu-plan]'. They need no GPU."
        )
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_autotune_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {GPU_FLAG}".strip()
    return topologies.get_topology_desc(
        platform="cuda",
        topology_name=kind,
        topology=f"1x1x{number}",  # slices, hosts, GPUs of a host
        target_config=GPUS[kind].target_config(),
    ).devices


def _tpu_devices(topology: str) -> Sequence[jax.Device]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"Planning for {topology} takes the TPU compiler, libtpu (0.7 GB), which is not installed; "
            "run pip install 'eelbert_jax[tpu-plan]'. It needs no TPU."
        )
    for name, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        raise UserError(
            f"libtpu cannot compile for the topology {topology!r}: "
            f"{' '.join(str(error).split())[:300]} {HELP}"
        ) from error


def slice_shape(devices: Sequence[jax.Device]) -> tuple[int, ...]:
    """Return the chips along each axis of the slice that `devices` fill; (n,) where they have no place."""
    if not hasattr(devices[0], "coords"):
        return (len(devices),)
    extents = [max(axis) - min(axis) + 1 for axis in zip(*(d.coords for d in devices), strict=True)]
    return tuple(extent for extent in extents if extent > 1) or (1,)
