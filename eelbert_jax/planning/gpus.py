"""GPUs as XLA describes them to itself, so that it compiles for one that is not here.

Attributes of the hardware as the CUDA driver reports them; what a GPU can do stands in `chips`.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from eelbert_jax.planning.chips import CHIPS


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
      device_kind: as JAX calls it, a key of `CHIPS`.
      compute_capability: (major, minor).
      multiprocessors: streaming multiprocessors.
      cores: float32 units of a multiprocessor.
      shared_memory: bytes of a multiprocessor.
      shared_memory_optin: bytes that a block may ask for.
      l2_bytes: cache.
      clock_ghz: highest.
    """

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
