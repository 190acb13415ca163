"""Processes, N at a time: none is left when a sweep ends, however it ends."""

import time
from pathlib import Path

import pytest

from eelbert_jax.sweeping import processes


class Command:
    """A task for `processes`: a line of shell."""

    def __init__(self, workdir: Path, line: str) -> None:
        self.logs = workdir
        self.command = ("sh", "-c", line)


def run_commands(tasks, count):
    ends = []
    processes.run_all(tasks, count, lambda task, how: ends.append((task, how)))
    return ends


@pytest.mark.parametrize("count", [1, 2, 9])
def test_as_many_processes_as_asked_for(tmp_path, count):
    line = f"touch {tmp_path}/$$.on; ls {tmp_path}/*.on | wc -l; sleep 0.2; rm {tmp_path}/$$.on"
    ends = run_commands([Command(tmp_path / str(i), line) for i in range(4)], count)
    assert [how.status for _, how in ends] == [0] * 4
    most = max(int(processes.last_line(tmp_path / str(i))) for i in range(4))
    assert (most == 1) if count == 1 else (1 < most <= count)


def test_signals_and_statuses_are_told(tmp_path):
    ends = run_commands([Command(tmp_path / "a", "kill -9 $$"), Command(tmp_path / "b", "exit 3")], 1)
    assert [str(how) for _, how in ends] == ["killed by signal 9", "exit status 3"]


def test_a_folder_in_which_a_process_works_is_left_alone(tmp_path):
    ends = run_commands([Command(tmp_path, "sleep 0.5; echo first"), Command(tmp_path, "echo second")], 2)
    assert [how.status for _, how in ends] == [None, 0]
    assert (tmp_path / "log.txt").read_text() == "first\n"


def test_stopping_ends_the_processes_and_their_children(tmp_path):
    def stop(_, how):
        raise KeyboardInterrupt

    tasks = [
        Command(tmp_path / "a", f"sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' & wait"),
        Command(tmp_path / "b", f"until [ -s {tmp_path}/child ]; do :; done"),
    ]
    with pytest.raises(KeyboardInterrupt):
        processes.run_all(tasks, 2, stop)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)
