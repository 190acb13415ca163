"""How the process keeps the host's memory between the steps of a CPU."""

import ctypes
import importlib.util
import os

RESERVED, HUGE_PAGE = 2**31, 2**21
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX, MADV_HUGEPAGE = -1, -4, -8, 14
ACCELERATOR_PLUGINS = ("jax_plugins", "libtpu")


def steps_run_on_cpu() -> bool:
    """Return whether JAX will take the CPU, without importing it."""
    first = os.environ.get("JAX_PLATFORMS", "").partition(",")[0]
    return first == "cpu" if first else not any(map(importlib.util.find_spec, ACCELERATOR_PLUGINS))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, in one heap whose first 2 GiB are of huge pages; elsewhere do nothing.

    XLA on a CPU allocates the temporaries of a step anew at every call: tens to hundreds of megabytes, which
    the system would take back, hand out and clear again. Call it before any thread starts: a thread keeps the
    heap it has. The 2 GiB are addresses; what is not touched takes no memory.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1)):
        libc.mallopt(option, value)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if reserved := libc.malloc(RESERVED):
        start = -(-reserved // HUGE_PAGE) * HUGE_PAGE
        libc.madvise(start, RESERVED - HUGE_PAGE, MADV_HUGEPAGE)
        libc.free(reserved)
