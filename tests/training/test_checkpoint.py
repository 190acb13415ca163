"""Checkpoints: what is saved is what is restored, and what got damaged is noticed and passed over."""

import contextlib
import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.training import digests
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.digests import MANIFEST_NAME
from eelbert_jax.training.step import TrainState

IDENTITY = {"size": "micro", "vocabulary": {"words": 7}}
ROOT = Path(__file__).resolve().parents[2]


def state_at(step, size=5_000):
    """Return a state whose every value tells its step; random, so that no file compresses away."""
    values = np.random.default_rng(step).standard_normal((2, size), np.float32)
    return TrainState(
        jnp.int32(step), {"layer": {"w": jnp.asarray(values[0])}}, {"mu": jnp.asarray(values[1])}
    )


def assert_state(state, step):
    wanted = state_at(step, state.params["layer"]["w"].shape[0])
    jax.tree.map(np.testing.assert_array_equal, state, wanted)


def save(directory, *steps, **options):
    with Checkpoints(directory, **{"keep": 5, **options}) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step), IDENTITY)


def restored(directory, create=False):
    """Return the newest good state and hold it and its parameters against what was saved at that step."""
    with Checkpoints(directory, create=create) as checkpoints:
        like = jax.eval_shape(lambda: state_at(0))
        state = checkpoints.restore(like, IDENTITY)
        step = int(state.step)
        assert checkpoints.latest_step() == step
        assert_state(state, step)
        params = checkpoints.restore_params(like.params, IDENTITY)
        jax.tree.map(np.testing.assert_array_equal, params, state.params)
    return step


def names(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def one_file(folder, pattern):
    """Return the largest file of the pattern: the one that holds values where several do."""
    return max(folder.glob(pattern), key=lambda path: path.stat().st_size)


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES = (
    "state/ocdbt.process_0/d/*",
    "state/d/*",
    "state/manifest.ocdbt",
    "state/_METADATA",
    "identity/metadata",
    MANIFEST_NAME,
)


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("damage", [flip_bit, halve, Path.unlink])
def test_damage_is_named_and_the_newest_good_step_taken(tmp_path, capfd, pattern, damage):
    save(tmp_path, 1, 2)
    path = one_file(tmp_path / "2", pattern)
    damage(path)

    before = names(tmp_path)
    assert restored(tmp_path) == 1
    assert names(tmp_path) == before, "a reader leaves the folder as it is"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"WARNING: Checkpoint 2 in {tmp_path} is damaged: ")
    assert str(path.relative_to(tmp_path / "2")) in line
    assert line.endswith("Taking step 1 instead.")

    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2.corrupt"}


def test_a_damaged_checkpoint_that_cannot_be_renamed_is_a_clear_error(tmp_path, monkeypatch):
    save(tmp_path, 1, 2)
    flip_bit(one_file(tmp_path / "2", FILES[0]))

    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(digests, "set_aside", refuse)
    with pytest.raises(UserError, match=r"2 in .* is damaged .* cannot be renamed: Permission denied\. Move"):
        Checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(flip_bit, "has the sha256"), (halve, "bytes, sha256.json says"), (Path.unlink, "missing")],
)
def test_the_reason_is_named(tmp_path, capfd, damage, reason):
    save(tmp_path, 1, 2)
    damage(one_file(tmp_path / "2", "state/ocdbt.process_0/d/*"))
    assert restored(tmp_path) == 1
    assert reason in capfd.readouterr().err


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
@pytest.mark.parametrize("damage", [flip_bit, halve, Path.unlink])
def test_nothing_depends_on_what_the_manifest_does_not_name(tmp_path, name, damage):
    save(tmp_path, 1, 2)
    if not (tmp_path / "2" / name).exists():
        pytest.skip(f"This version of Orbax writes no {name}.")
    damage(tmp_path / "2" / name)
    assert restored(tmp_path, create=True) == 2
    save(tmp_path, 3)
    assert restored(tmp_path) == 3


def test_the_manifest_names_every_file_of_the_items(tmp_path):
    save(tmp_path, 1)
    folder = tmp_path / "1"
    on_disk = {name for name in names(folder) if (folder / name).is_file() and "/" in name}
    recorded = json.loads((folder / MANIFEST_NAME).read_text())["files"]
    assert recorded.keys() == on_disk
    assert all(recorded[name]["bytes"] == (folder / name).stat().st_size for name in on_disk)


def test_an_older_step_is_good_after_two_damaged_ones(tmp_path, capfd):
    save(tmp_path, 1, 2, 3)
    flip_bit(one_file(tmp_path / "3", "state/ocdbt.process_0/d/*"))
    (tmp_path / "2" / "identity" / "metadata").unlink()
    assert restored(tmp_path, create=True) == 1
    told = capfd.readouterr().err
    assert "Checkpoint 3" in told
    assert "Checkpoint 2" in told
    save(tmp_path, 2)
    halve(one_file(tmp_path / "2", "state/ocdbt.process_0/d/*"))
    assert restored(tmp_path, create=True) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2.corrupt", "2.corrupt-2", "3.corrupt"}


def test_without_a_good_step_nothing_is_touched(tmp_path):
    save(tmp_path, 1, 2)
    for step in "12":
        halve(one_file(tmp_path / step, "state/ocdbt.process_0/d/*"))
    before = names(tmp_path)
    for create in (False, True):
        with pytest.raises(
            UserError, match=r"No checkpoint in .* is good \(2: state.*; 1: state.*move them away"
        ):
            Checkpoints(tmp_path, create=create)
    assert names(tmp_path) == before


def test_empty_folders_and_what_killed_saves_left_are_passed_over(tmp_path, capfd):
    save(tmp_path, 1)
    (tmp_path / "2").mkdir()
    stale = tmp_path / "3.orbax-checkpoint-tmp" / "state"
    stale.mkdir(parents=True)
    (stale / "_METADATA").write_text("{")
    assert restored(tmp_path) == 1
    assert stale.is_dir(), "a reader leaves the folder as it is"
    save(tmp_path, 3)
    assert restored(tmp_path) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2.corrupt", "3"}
    assert "Checkpoint 2" in capfd.readouterr().err


def save_as_before_manifests(directory, *steps):
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    with ocp.CheckpointManager(directory, options=options, item_names=("state", "identity")) as manager:
        for step in steps:
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state_at(step)), identity=ocp.args.JsonSave(IDENTITY)
            )
            manager.save(step, args=items, force=True)


def test_checkpoints_of_an_older_version_are_taken_and_told(tmp_path, capfd):
    save_as_before_manifests(tmp_path, 1, 2)
    assert restored(tmp_path, create=True) == 2
    assert f"Checkpoint 2 in {tmp_path} has no {MANIFEST_NAME}" in capfd.readouterr().err
    save(tmp_path, 3)
    capfd.readouterr()
    assert restored(tmp_path) == 3
    assert "WARNING" not in capfd.readouterr().err
    flip_bit(one_file(tmp_path / "3", "state/ocdbt.process_0/d/*"))
    assert restored(tmp_path, create=True) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2", "3.corrupt"}


def test_a_torn_checkpoint_of_an_older_version_is_refused_in_words(tmp_path):
    save_as_before_manifests(tmp_path, 1)
    one_file(tmp_path / "1", "state/ocdbt.process_0/d/*").unlink()
    with pytest.raises(UserError, match=r"step 1 .* cannot be restored.*move .* away"):
        restored(tmp_path)


def test_the_state_may_be_donated_at_once(tmp_path):
    donate = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 0 - 1, state), donate_argnums=0)
    size = 2_000_000  # takes longer to write than to overwrite
    unsaved = state_at(0, size)
    jax.block_until_ready(donate(unsaved))
    assert unsaved.params["layer"]["w"].is_deleted(), "donation does overwrite on this backend"
    with Checkpoints(tmp_path) as checkpoints:
        state = state_at(1, size)
        checkpoints.save(state, IDENTITY)
        for _ in range(3):
            state = donate(state)
        jax.block_until_ready(state)
        saved = checkpoints.restore(jax.eval_shape(lambda: state_at(1, size)), IDENTITY)
    assert_state(saved, 1)


@contextlib.contextmanager
def no_room_for_files_beyond(num_bytes):
    """Let the kernel refuse to write files beyond a size, as it refuses on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "tell", [Checkpoints.wait, Checkpoints.latest_step, lambda it: it.save(state_at(3), IDENTITY)]
)
def test_a_full_disk_is_told_by_the_next_call_and_nothing_finished_is_lost(tmp_path, tell):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(1), IDENTITY)
        checkpoints.wait()
        with no_room_for_files_beyond(8_000):
            checkpoints.save(state_at(2), IDENTITY)
            with pytest.raises(UserError, match=r"Saving step 2 to .* failed: .*step 1 stands.*Free space"):
                tell(checkpoints)
        assert checkpoints.latest_step() == 1
        assert restored(tmp_path) == 1
        checkpoints.save(state_at(3), IDENTITY)  # there is room again
    assert restored(tmp_path) == 3
    save(tmp_path, 4, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {"4"}


def test_a_full_disk_is_told_at_the_end(tmp_path):
    save(tmp_path, 1)
    with (
        no_room_for_files_beyond(8_000),
        pytest.raises(UserError, match="step 1 stands"),
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(state_at(2), IDENTITY)
    assert restored(tmp_path) == 1


def test_a_failed_save_does_not_hide_why_the_run_ended(tmp_path, capfd):
    def train():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state_at(2), IDENTITY)
            raise KeyError("the cause")

    with no_room_for_files_beyond(8_000), pytest.raises(KeyError, match="the cause"):
        train()
    assert "Saving step 2" in capfd.readouterr().err


@pytest.mark.parametrize("error", [None, SystemExit, KeyboardInterrupt])
def test_leaving_right_after_a_save_keeps_it(tmp_path, error):
    with contextlib.suppress(SystemExit, KeyboardInterrupt), Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(1), IDENTITY)
        if error is not None:
            raise error
    assert restored(tmp_path) == 1


def test_keep_and_keep_every_hold_across_a_fallback(tmp_path):
    save(tmp_path, 5, 10, 15, 20, 25, keep=2, keep_every_steps=10)
    assert {path.name for path in tmp_path.iterdir()} == {"10", "20", "25"}
    flip_bit(one_file(tmp_path / "25", "state/ocdbt.process_0/d/*"))
    with Checkpoints(tmp_path, keep=2, keep_every_steps=10) as checkpoints:
        assert checkpoints.latest_step() == 20
    save(tmp_path, 25, 30, 35, 45, keep=2, keep_every_steps=10)
    assert {path.name for path in tmp_path.iterdir()} == {"10", "20", "25.corrupt", "30", "35", "45"}
    assert restored(tmp_path) == 45


def test_a_step_saved_again_replaces_what_came_after_it(tmp_path):
    save(tmp_path, 1, 2, 3)
    save(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
    assert restored(tmp_path) == 2


def test_a_step_that_a_failed_save_gave_up_is_not_named_as_standing(tmp_path):
    save(tmp_path, 1, 3)
    with Checkpoints(tmp_path, keep=5) as checkpoints, no_room_for_files_beyond(8_000):
        checkpoints.save(state_at(2), IDENTITY)
        with pytest.raises(UserError, match="step 1 stands"):
            checkpoints.wait()
    assert restored(tmp_path) == 1


def test_another_model_is_refused_with_the_difference(tmp_path):
    save(tmp_path, 1)
    with Checkpoints(tmp_path, create=False) as checkpoints:
        other = {**IDENTITY, "vocabulary": {"words": 8}}
        with pytest.raises(UserError, match=r"vocabulary.words: saved 7, wanted 8"):
            checkpoints.restore(jax.eval_shape(lambda: state_at(0)), other)


def test_a_reader_neither_makes_nor_saves(tmp_path):
    with pytest.raises(UserError, match="No checkpoints at"):
        Checkpoints(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with Checkpoints(tmp_path, create=False) as checkpoints:
        assert checkpoints.latest_step() is None
        with pytest.raises(UserError, match="No checkpoint in"):
            checkpoints.identity()
        with pytest.raises(RuntimeError, match="opened to read"):
            checkpoints.save(state_at(1), IDENTITY)


RESUME_AND_SAVE = """
import sys, jax
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_checkpoint import IDENTITY, assert_state, state_at
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
    command = [sys.executable, "-c", RESUME_AND_SAVE.format(tests=str(ROOT / "tests" / "training")), tmp_path]
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
