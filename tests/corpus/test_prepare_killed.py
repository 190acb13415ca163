"""`eelbert prepare` whose processes are killed, or whose disk is full: an error, and nothing lost."""

import lzma
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eelbert_jax.jobs import prepare
from support.preparations import document, files_of, flags


def start(arguments: list[str], **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "eelbert_jax", "prepare", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parents[2], **options
    )


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


@pytest.fixture
def large_corpus(corpus):
    """Add compressed files that take some seconds."""
    text = "\n\n".join(document(number) for number in range(2000))
    for number in range(6):
        (corpus / f"large{number}.txt.xz").write_bytes(lzma.compress(f"{text} {number}".encode(), preset=0))
    return corpus


def large_flags(corpus: Path, workdir: Path, *more: str) -> list[str]:
    return flags(corpus, workdir, f"--config.source={corpus}/*.txt*", "--config.workers=2", *more)


def children_of(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="looks processes up in /proc (Linux)"
)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("units_before", [1, 4, 8])
def test_killed_preparation_goes_on_to_the_same_bytes(large_corpus, tmp_path, units_before):
    prepare.main(large_flags(large_corpus, tmp_path / "whole"))
    process = start(large_flags(large_corpus, tmp_path / "rows"))
    units = tmp_path / "rows/units"
    wait_for(lambda: len(list(units.glob("*.json"))) >= units_before)
    workers_of_it = children_of(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(map(is_running, workers_of_it)), seconds=10)
    done = {path: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert not (tmp_path / "rows/manifest.json").exists(), "the kill came too late to test anything"
    prepare.main(large_flags(large_corpus, tmp_path / "rows"))
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished unit was prepared again"
    assert not list((tmp_path / "rows").glob("*/*.tmp"))


@pytest.mark.slow
@needs_proc
def test_killed_worker_is_one_clear_error(large_corpus, tmp_path):
    process = start(large_flags(large_corpus, tmp_path / "rows"))
    wait_for(lambda: len(list((tmp_path / "rows/units").glob("*.json"))) >= 2)
    workers_of_it = [
        pid for pid in children_of(process) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(workers_of_it[0], signal.SIGKILL)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: A worker process was killed by signal 9" in shown
    assert "Traceback" not in shown
    prepare.main(large_flags(large_corpus, tmp_path / "rows"))


@pytest.mark.slow
def test_full_disk_is_one_clear_error_and_finished_units_stay(large_corpus, tmp_path):
    """A limit on the size of a file stands in for the disk: writing fails in the middle of a shard."""
    (large_corpus / "large5.txt.xz").write_bytes(
        lzma.compress("\n\n".join(document(number) for number in range(8000)).encode(), preset=0)
    )
    arguments = large_flags(large_corpus, tmp_path / "rows")
    limited = f"ulimit -f 1200; exec {sys.executable} -m eelbert_jax prepare " + " ".join(
        f"'{a}'" for a in arguments
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 2
    assert re.search(r"error: Cannot write to .*rows: File too large\. Make room", done.stderr)
    assert "Traceback" not in done.stderr
    units = len(list((tmp_path / "rows/units").glob("*.json")))
    assert units >= 6
    assert not list((tmp_path / "rows").glob("*/*.tmp"))
    prepare.main(arguments)
    prepare.main(large_flags(large_corpus, tmp_path / "whole"))
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "whole")
