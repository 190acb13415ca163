import json

import pytest

from eelbert_jax.training.writer import Writer, duration, read_metrics


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
    assert list((tmp_path / "tensorboard").iterdir())


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
