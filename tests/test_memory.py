import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from eelbert_jax.memory import restart_with_huge_pages
print("started", flush=True)
restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


def run(**environment: str) -> list[str]:
    env = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | environment
    words = [sys.executable, "-X", "utf8", "-c", PROGRAM, "--flag=a b"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_starts_once_more_with_the_same_words():
    assert run() == ["started", "started", "glibc.malloc.hugetlb=1 ['--flag=a b']"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_the_users_own_setting_stays():
    assert run(GLIBC_TUNABLES="glibc.malloc.check=0") == ["started", "glibc.malloc.check=0 ['--flag=a b']"]
