import json
import os
import signal
import subprocess
import sys

import pytest

from eelbert_jax.training.writer import Writer, duration, read_metrics, shown_events


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59, "59s"), (61, "1m01s"), (3721, "1h02m"), (float("inf"), "?")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_resumed_run_drops_what_came_after_its_step(tmp_path):
    with Writer(tmp_path, 10, 0, tensorboard=True) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"train_loss": step / 2})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "tra')  # torn by a kill
    with Writer(tmp_path, 10, 2, tensorboard=True) as writer:
        writer.scalars(3, {"train_loss": 9.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "train_loss": 0.5},
        {"step": 2, "train_loss": 1.0},
        {"step": 3, "train_loss": 9.0},
    ]
    assert read_metrics(path)[-1]["step"] == 3
    assert shown_events(tmp_path / "tensorboard") == {
        ("train_loss", step): 9.0 if step == 3 else step / 2 for step in (1, 2, 3)
    }


def logged(workdir):
    """Return (name, step) -> value of everything that a run's metrics.jsonl has."""
    records = read_metrics(workdir / "metrics.jsonl")
    return {
        (name, record["step"]): value
        for record in records
        for name, value in record.items()
        if name != "step"
    }


def test_tensorboard_lacks_nothing_after_a_kill(tmp_path):
    code = (
        "import os, signal, sys, pathlib; from eelbert_jax.training.writer import Writer\n"
        "with Writer(pathlib.Path(sys.argv[1]), 99, 0, tensorboard=True) as writer:\n"
        "    for step in (1, 2, 3): writer.scalars(step, {'train_loss': step / 4, 'lr': 0.5})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env=os.environ)
    assert process.returncode == -signal.SIGKILL
    assert shown_events(tmp_path / "tensorboard") == logged(tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-7])  # what a kill inside of a write leaves
    with Writer(tmp_path, 99, 3, tensorboard=True) as writer:
        writer.scalars(4, {"train_loss": 1.0})
    assert shown_events(tmp_path / "tensorboard") == logged(tmp_path)
    assert len(logged(tmp_path)) == 7


def test_tensorboard_that_is_switched_on_later_shows_the_whole_run_once(tmp_path):
    for start, tensorboard in ((0, False), (1, True), (2, True)):
        with Writer(tmp_path, 9, start, tensorboard=tensorboard) as writer:
            writer.scalars(start + 1, {"train_loss": float(start)})
    assert shown_events(tmp_path / "tensorboard") == logged(tmp_path)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "tensorboard").iterdir())]
    assert sizes[1] < sizes[0], "the second start had nothing to write again"


def test_a_run_that_starts_anew_shows_nothing_of_the_one_before(tmp_path):
    for start in (0, None):
        with Writer(tmp_path, 9, start, tensorboard=True) as writer:
            writer.scalars(0, {"before" if start == 0 else "after": 1.0})
    assert shown_events(tmp_path / "tensorboard") == {("after", 0): 1.0}


def test_other_processes_write_nothing(tmp_path, capsys):
    with Writer(None, 10, 0, tensorboard=True) as writer:
        writer.scalars(1, {"train_loss": 1.0})
        writer.progress(1, "loss 1")
        writer.note("hello")
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())


def test_progress_says_how_far_it_is(tmp_path, capsys):
    with Writer(tmp_path, 10, 0, tensorboard=False) as writer:
        writer.progress(5, "loss 1.0")
    assert "step 5/10 (50%)  loss 1.0  ETA 0s" in capsys.readouterr().out
