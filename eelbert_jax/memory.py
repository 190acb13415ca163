"""How the process gets the host's memory: in large pages."""

import os
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""Tells glibc's malloc to ask for huge pages. Source: glibc manual, "Memory Allocation Tunables"."""


def restart_with_huge_pages() -> None:
    """Start this program anew with huge pages for malloc, unless it has them or the user has set tunables.

    XLA on a CPU allocates the temporaries of a step anew at every call: tens to hundreds of megabytes, which
    the system hands out and clears page by page. With pages of 2 MiB a pre-training step of a tiny model on
    two cores takes a fifth less time. glibc reads the setting before the first line of Python runs, hence the
    restart; it happens before anything is imported that takes time. Source: ours.
    """
    if sys.platform.startswith("linux") and TUNABLES not in os.environ:
        os.environ[TUNABLES] = HUGE_PAGES
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
