"""Accelerators to plan for: what their data sheets say, and devices to compile for that are not here.

Figures of a data sheet are not measured: what a program reaches lies below them.
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax
from jax.experimental import topologies

from eelbert_jax.errors import UserError

GIB = 2**30

HOP_SECONDS = 1e-6
"""Link latency with which ASTRA-sim's ring all-reduce agrees with TPU v3 ("Validation on Google's TPU-v3");
later generations publish none."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator; `peak_flops` is of dense bfloat16.

    Attributes:
      memory_bandwidth: bytes a second.
      ring_bandwidth: bytes a second that a chip sends in one ring; the published figure is 2 x axes x this.
      ring_multiple: an axis of a slice closes to a ring when its length is a multiple of this.
      clock_hz: of the cycles in which the compiler counts; None: it gives none.
    """

    name: str
    memory_bytes: float
    peak_flops: float
    memory_bandwidth: float
    ring_bandwidth: float
    ring_multiple: int
    clock_hz: float | None
    source: str

    def send_bandwidth(self, shape: Sequence[int]) -> float:
        """Return the bytes a second that a chip sends; without a closed axis there still is one ring."""
        rings = sum(1 for length in shape if length > 1 and length % self.ring_multiple == 0)
        return self.ring_bandwidth * max(rings, 1)


CHIPS: Mapping[str, Chip] = MappingProxyType(
    {
        "TPU v5 lite": Chip(
            name="TPU v5e",
            memory_bytes=16 * GIB,
            peak_flops=197e12,
            memory_bandwidth=819e9,
            ring_bandwidth=400e9 / 4,
            ring_multiple=16,
            clock_hz=197e12 / (4 * 128 * 128 * 2),  # four MXUs of 128 x 128: 1.5 GHz
            source="https://cloud.google.com/tpu/docs/v5e",
        ),
        "TPU v5": Chip(
            name="TPU v5p",
            memory_bytes=95 * GIB,
            peak_flops=459e12,
            memory_bandwidth=2765e9,
            ring_bandwidth=1200e9 / 6,
            ring_multiple=4,
            clock_hz=459e12 / (8 * 128 * 128 * 2),  # two cores of four MXUs: 1.75 GHz
            source="https://cloud.google.com/tpu/docs/v5p",
        ),
        "TPU v6 lite": Chip(
            name="TPU v6e",
            memory_bytes=32 * GIB,
            peak_flops=918e12,
            memory_bandwidth=1638e9,
            ring_bandwidth=800e9 / 4,
            ring_multiple=16,
            # Not published. The compiler counts 369k operations a cycle in a product of matrices of 8192 x
            # 8192, which rules out the 262k of two 256 x 256 MXUs; of 524k the peak makes 1.75 GHz.
            clock_hz=918e12 / (8 * 256 * 256),
            source="https://cloud.google.com/tpu/docs/v6e",
        ),
        "NVIDIA A100-SXM4-80GB": Chip(
            name="NVIDIA A100 SXM 80 GB",
            memory_bytes=80e9,
            peak_flops=312e12,
            memory_bandwidth=2.039e12,
            ring_bandwidth=600e9 / 2,
            ring_multiple=1,
            clock_hz=None,
            source="https://www.nvidia.com/en-us/data-center/a100/",
        ),
        "NVIDIA H100 80GB HBM3": Chip(
            name="NVIDIA H100 SXM",
            memory_bytes=80e9,
            peak_flops=989e12,  # half of the sheet's figure, which is for sparse matrices
            memory_bandwidth=3.35e12,
            ring_bandwidth=900e9 / 2,
            ring_multiple=1,
            clock_hz=None,
            source="https://www.nvidia.com/en-us/data-center/h100/",
        ),
        "NVIDIA H200": Chip(
            name="NVIDIA H200 SXM",
            memory_bytes=141e9,
            peak_flops=989e12,  # half of the sheet's figure, which is for sparse matrices
            memory_bandwidth=4.8e12,
            ring_bandwidth=900e9 / 2,
            ring_multiple=1,
            clock_hz=None,
            source="https://www.nvidia.com/en-us/data-center/h200/",
        ),
    }
)
"""By `jax.Device.device_kind`."""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One kind of GPU as XLA describes it to itself; `device_kind` is a key of `CHIPS`."""

    device_kind: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    cores: int
    shared_memory: int
    shared_memory_optin: int
    l2_bytes: int
    clock_ghz: float

    def target_config(self) -> str:
        """Return XLA's `GpuTargetConfigProto` as text. Source: the specifications in XLA's repository."""
        chip = CHIPS[self.device_kind]
        major, minor = self.compute_capability
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_memory}
  threads_per_core_limit: 2048
  core_count: {self.multiprocessors}
  fpus_per_core: {self.cores}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {chip.memory_bandwidth:.0f}
  l2_cache_size: {self.l2_bytes}
  clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {chip.memory_bytes:.0f}
  shared_memory_per_block_optin: {self.shared_memory_optin}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{self.device_kind}"
"""


GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "a100": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 167_936, 166_912, 41_943_040, 1.41),
        "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 233_472, 232_448, 52_428_800, 1.98),
        "h200": Gpu("NVIDIA H200", (9, 0), 132, 128, 233_472, 232_448, 52_428_800, 1.98),
    }
)
"""The GPUs that a topology can name."""

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
    """Return devices to compile for that are not here: "v5e:16x16", a slice; "h200:8", GPUs of one host."""
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
