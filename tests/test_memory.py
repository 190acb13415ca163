"""How many pages the system hands out for memory that was freed before, and which backend that is for."""

import subprocess
import sys

import pytest

from eelbert_jax import memory

PROGRAM = """
import ctypes, resource, sys, threading
from eelbert_jax import memory
if sys.argv[1] == "keep":
    memory.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def use():
    blocks = [libc.malloc(100 << 20) for _ in range(2)]
    for block in blocks:
        ctypes.memset(block, 1, 100 << 20)
        libc.free(block)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the settings are glibc's")
def test_memory_used_a_second_time_comes_without_the_system():
    assert faults("leave") > 50
    assert faults("keep") < 50


@pytest.mark.parametrize(
    ("platforms", "installed", "expected"),
    [
        ("cpu", True, True),
        ("cuda,cpu", False, False),
        ("", False, True),
        ("", True, False),
    ],
)
def test_a_cpu_is_known_without_jax(monkeypatch, platforms, installed, expected):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    found = "json" if installed else "no_such_plugin_here"
    monkeypatch.setattr(memory, "ACCELERATOR_PLUGINS", ("no_such_plugin", found))
    assert memory.steps_run_on_cpu() is expected
