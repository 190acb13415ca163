"""Global arrays over virtual devices, in a process of its own: the number of devices is fixed at start."""

import subprocess
import sys

PROGRAM = """
import numpy as np, jax
from eelbert_jax.errors import UserError
from eelbert_jax.training import sharding
mesh = sharding.make_mesh()
values = np.arange(2 * 8 * 3).reshape(2, 8, 3)
read = []
def part(index):
    read.append(values[index])
    return values[index]
array = sharding.global_array(part, values.shape, sharding.Layout(mesh).rows(row_axis=1))
assert np.array_equal(array, values)
assert sorted(block.shape for block in read) == [(2, 2, 3)] * 4, "each device reads its own rows"
assert np.array_equal(np.sort(np.concatenate([block.ravel() for block in read])), values.ravel())
try:
    sharding.check_divisible("batch_size", 10, mesh)
except UserError as error:
    print(error)
"""


def test_each_device_reads_only_its_own_rows():
    env = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True
    )
    assert "batch_size=10 rows do not split over 4 devices; make it a multiple of 4." in done.stdout
