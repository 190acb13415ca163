"""Checkpoints of a process that is killed while it saves."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESUME_AND_SAVE = """
import sys, jax
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.checkpoints import IDENTITY, assert_state, state_at
from eelbert_jax.training import digests
from eelbert_jax.training.checkpoint import Checkpoints
SIZE = 200_000
with Checkpoints(Path(sys.argv[1])) as checkpoints:
    step = checkpoints.latest_step()
    if step is not None:
        state = checkpoints.restore(jax.eval_shape(lambda: state_at(0, SIZE)), IDENTITY)
        assert int(state.step) == step
        assert_state(state, step)
    step = step or 0
    print("resumed", step, flush=True)
    while True:
        step += 1
        state = state_at(step, SIZE)
        print("begin", step, flush=True)
        checkpoints.save(state, IDENTITY)
        checkpoints.wait()
        print("saved", step, flush=True)
"""
KILLS = 20


@pytest.mark.slow
def test_killed_at_random_points_of_saves_it_resumes_from_the_newest_one(tmp_path):
    """Kill -9 a process that saves in a tight loop; the next one checks every value of what it resumes."""
    draw = random.Random(0)
    command = [sys.executable, "-c", RESUME_AND_SAVE.format(tests=str(ROOT / "tests")), tmp_path]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    saved, inside = 0, 0
    for attempt in range(KILLS + 1):
        told = (tmp_path.parent / f"{tmp_path.name}-{attempt}.err").open("w+")
        with (
            told,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told, text=True, env=env) as child,
        ):
            lines = [child.stdout.readline()]
            told.seek(0)
            problems = told.read()
            assert lines[0].startswith("resumed"), problems
            assert "is damaged" not in problems, "no kill leaves a newest checkpoint that is damaged"
            assert int(lines[0].split()[1]) in (saved, saved + 1), "what was told to be saved is there"
            if attempt == KILLS:  # the last one only resumes
                child.kill()
                break
            for _ in range(draw.randint(1, 4)):
                lines.append(child.stdout.readline())
                began = time.monotonic()
                lines.append(child.stdout.readline())
                seconds = time.monotonic() - began
            lines.append(child.stdout.readline())
            time.sleep(draw.random() * seconds)  # waits for nothing: it chooses the point of the save
            child.kill()
            lines += child.stdout
        assert all(lines), problems
        inside += lines[-1].startswith("begin")
        saved = int([line for line in lines if not line.startswith("begin")][-1].split()[1])
    print(f"{inside} of {KILLS} kills fell inside a save")
    assert inside >= KILLS // 2, "the points are random ones of saves"
