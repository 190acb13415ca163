"""Compile any jitted training step for devices that need not be here, and say what it takes of each."""

import dataclasses
import math
import os
import re
from typing import Any

import jax

from eelbert_jax.errors import UserError
from eelbert_jax.planning import cost
from eelbert_jax.planning.cost import Collective, Estimate, Traffic
from eelbert_jax.planning.devices import CHIPS, Chip, slice_shape

_TOO_LARGE = "RESOURCE_EXHAUSTED"
GPU_SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_REFUSAL = re.compile(r"[^.:]*memory[^.]*\d[^\n]*", re.IGNORECASE)


class DoesNotFit(UserError):
    """The step takes more memory than a chip has."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one chip.

    Attributes:
      constants: hashed tables.
      temporary: activations, gradients and what else lives during the step, at the worst moment.
      other: rows, metrics, the program, and the padding of layouts.
      capacity: as the chip's maker states it; None where unknown.
      usable: what JAX takes of that.
    """

    params: int
    optimizer: int
    constants: int
    temporary: int
    other: int
    total: int
    capacity: float | None
    usable: float | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What one optimizer step takes of every chip.

    Attributes:
      batch_size: rows a step, over all chips.
      flops: of a chip, as the compiler counts, the body of a loop once; None where it does not say.
      bytes_counted_by: "the compiler", a loop's body once, or "this program", as often as it runs.
      optimal_seconds: as the compiler says; None where it gives none, or a negative one.
    """

    device_kind: str
    slice_shape: tuple[int, ...]
    mesh: dict[str, int]
    batch_size: int
    row_length: int
    total_steps: int
    memory: Memory
    flops: float | None
    matmul_flops: float
    bytes_accessed: float
    bytes_counted_by: str
    optimal_seconds: float | None
    traffic: tuple[Traffic, ...]
    estimate: Estimate | None

    @property
    def num_chips(self) -> int:
        """Devices of the plan."""
        return math.prod(self.mesh.values())

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens a second over all chips; None without an estimate."""
        return self.batch_size * self.row_length / self.estimate.step if self.estimate else None

    @property
    def hours(self) -> float | None:
        """Time of `total_steps`, without evaluation and checkpoints; None without an estimate."""
        return self.total_steps * self.estimate.step / 3600 if self.estimate else None

    def to_dict(self) -> dict[str, Any]:
        """Return every figure as JSON types."""
        derived = {"tokens_per_second": self.tokens_per_second, "hours": self.hours}
        if self.estimate:
            derived |= {"step_seconds": self.estimate.step, "roofline_seconds": self.estimate.roofline}
        return {"num_chips": self.num_chips, **dataclasses.asdict(self), **derived}


def plan_step(
    train_step: Any, state: Any, constants: Any, batches: jax.ShapeDtypeStruct, total_steps: int
) -> Plan:
    """Compile a step for the devices of its arguments' shardings and return what it takes.

    Args:
      train_step: jitted (state, constants, batches [1, B, L]) -> (state, metrics).
      state: tree with `params` and `opt_state`, like the rest of shapes with `NamedSharding`s.

    Raises:
      DoesNotFit: by the compiler's account or by the chip's size.
    """
    mesh = batches.sharding.mesh
    devices = mesh.devices.ravel().tolist()
    chip = CHIPS.get(devices[0].device_kind)
    traced = train_step.trace(state, constants, batches)
    compiled = _compile(traced)
    usable = chip.memory_bytes * _usable_share(devices[0]) if chip else None
    memory = _memory(compiled, state, constants, chip.memory_bytes if chip else None, usable)
    text, costs = compiled.as_text() or "", compiled.cost_analysis() or {}
    collectives = cost.find_collectives(text, len(devices))
    products = cost.matmul_flops(traced.jaxpr) / len(devices)
    flops, optimal, counted = map(costs.get, ("flops", "optimal_seconds", "bytes accessed"))
    accessed = cost.bytes_accessed(text) if counted is None else counted
    shape = slice_shape(devices)
    work = max(flops or 0.0, products)
    return Plan(
        device_kind=chip.name if chip else devices[0].device_kind,
        slice_shape=shape,
        mesh=dict(mesh.shape),
        batch_size=batches.shape[-2],
        row_length=batches.shape[-1],
        total_steps=total_steps,
        memory=memory,
        flops=flops,
        matmul_flops=products,
        bytes_accessed=accessed,
        bytes_counted_by="this program" if counted is None else "the compiler",
        optimal_seconds=optimal if optimal is not None and optimal > 0 else None,
        traffic=tuple(cost.traffic(collectives)),
        estimate=_estimate(chip, shape, work, accessed, text, collectives) if chip else None,
    )


def _estimate(
    chip: Chip,
    shape: tuple[int, ...],
    flops: float,
    accessed: float,
    text: str,
    collectives: list[Collective],
) -> Estimate:
    cycles = cost.estimated_cycles(text)
    return Estimate(
        compute=flops / chip.peak_flops,
        memory=accessed / chip.memory_bandwidth,
        collectives=cost.collective_seconds(collectives, chip, shape),
        scheduled=cycles / chip.clock_hz if cycles and chip.clock_hz else None,
    )


def _compile(traced: Any) -> jax.stages.Compiled:
    try:
        return traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if _TOO_LARGE not in str(error):
            raise
        reason = _REFUSAL.search(str(error).replace(_TOO_LARGE, ""))
        raise DoesNotFit(f"The step does not fit: {reason.group().strip() if reason else error}") from error


def _usable_share(device: jax.Device) -> float:
    """Return the share of its memory that JAX takes: all of a TPU's, of a GPU's what is preallocated."""
    if device.platform not in ("gpu", "cuda"):
        return 1.0
    try:
        return float(os.environ.get(GPU_SHARE, "0.75"))
    except ValueError as error:
        raise UserError(f"{GPU_SHARE}={os.environ[GPU_SHARE]!r} is no number; set it to 0.9, say.") from error


def _memory(
    compiled: jax.stages.Compiled, state: Any, constants: Any, capacity: float | None, usable: float | None
) -> Memory:
    found: Any = compiled.memory_analysis()
    arguments, outputs = found.argument_size_in_bytes, found.output_size_in_bytes
    temporary, code = found.temp_size_in_bytes, found.generated_code_size_in_bytes
    total = arguments + outputs - found.alias_size_in_bytes + temporary + code
    params, optimizer, hashed = map(bytes_per_device, (state.params, state.opt_state, constants))
    other = total - temporary - params - optimizer - hashed
    if capacity is not None and usable is not None and total > usable:
        less = f", of which JAX takes {usable / capacity:.0%} (see {GPU_SHARE})" if usable < capacity else ""
        raise DoesNotFit(
            f"The step does not fit: it takes {total / 2**30:.1f} GiB of a chip that has "
            f"{capacity / 2**30:.1f} GiB{less}."
        )
    return Memory(params, optimizer, hashed, temporary, other, total, capacity, usable)


def bytes_per_device(tree: Any) -> int:
    """Return the bytes that a device holds of a tree of shapes with shardings."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
