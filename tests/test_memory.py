import subprocess
import sys

import pytest

GROW_AND_FREE = """
import ctypes, resource, sys
from eelbert_jax.memory import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 64 << 20
def touch():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's")
def test_freed_memory_is_not_cleared_again_by_the_system():
    faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", GROW_AND_FREE, mode], capture_output=True, text=True, check=True
            ).stdout
        )
        for mode in ("kept", "given_back")
    }
    pages = 5 * (64 << 20) // 4096
    assert faults["kept"] < 0.01 * pages < 0.9 * pages < faults["given_back"]
