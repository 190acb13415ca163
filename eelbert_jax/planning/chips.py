"""What accelerators can do, by the kind that JAX calls them: memory, arithmetic, bandwidths, as published.

Numbers of a data sheet, not of a measurement: what a program reaches lies below. Leaves to `estimate` what
follows for a program.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType

GIB = 2**30

HOP_SECONDS = 1e-6
"""Time that the first byte takes from chip to chip. Source: the link latency with which ASTRA-sim's ring
all-reduce agrees with TPU v3 ("Validation on Google's TPU-v3"); later generations publish none."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of accelerator.

    Attributes:
      name: as its maker calls it.
      memory_bytes: high-bandwidth memory.
      peak_flops: bfloat16 products and sums a second, dense.
      memory_bandwidth: bytes a second between memory and chip.
      ring_bandwidth: bytes a second that a chip sends to its two neighbours in one ring. The published
        figure counts all links of a chip, both ways: 2 x axes x this.
      ring_multiple: an axis of a slice closes to a ring when its length is a multiple of this; 1: always.
      clock_hz: cycles a second in which the compiler counts; None: it gives no cycles.
      source: page that the figures are from.
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
        """Return the bytes a second that a chip of a slice can send, over all rings that it lies on.

        A slice without a closed axis still holds one ring through all its chips.

        Args:
          shape: chips along each axis of the slice.
        """
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
"""Every accelerator that we know figures of, by `jax.Device.device_kind`."""
