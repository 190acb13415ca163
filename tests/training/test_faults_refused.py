"""Break what a run reads, writes or is told, and demand one line that says what to do, and nothing lost.

Whole processes, as a user starts them. `test_faults.py` breaks the machines instead. Numbers:
docs/reliability.md.
"""

import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax.corpus.rows import Rows, row_indices
from eelbert_jax.inference.load import load
from eelbert_jax.interchange.folder import write_folder
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.digests import MANIFEST_NAME
from eelbert_jax.training.step import TrainState
from support.processes import finish, held_at, pretrain_words, run, start, wait_until_held
from support.workdirs import (
    assert_same_run,
    assert_same_values,
    checkpoint,
    checkpoint_terms,
    cut_back,
    digests,
    figures,
    newest_state,
    saved_steps,
)

pytestmark = pytest.mark.slow

EVERY_STEP = ("--config.checkpoint_every_steps=1", "--config.keep_checkpoints=30")
LAST = 20
HERE = 14
"""Where most tests cut the run, to break it."""


def words(rows_dir: Path, workdir: Path, *changes: str) -> list[str]:
    """Return the command of this file's runs: 20 steps, every one saved."""
    return pretrain_words(rows_dir, workdir, *EVERY_STEP, *changes)


def refused(command: list[str]) -> str:
    """Run, demand the status of bad input and an error without a traceback, and return the error."""
    [(status, out, error)] = finish(start(command))
    assert status == 2, f"{out}\n{error}"
    assert "Traceback" not in error
    return error[error.index("error: ") :]


@pytest.fixture(scope="module", autouse=True)
def _own_compiled_programs(tmp_path_factory):
    """Compile once for all runs here, and leave nothing that a full disk has torn to the user's runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        yield


@pytest.fixture(scope="module")
def finished(rows_dir, tmp_path_factory) -> Path:
    """Return the workdir of an uncut run, all 21 checkpoints in it. To be copied, not to be written."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(words(rows_dir, workdir))
    assert saved_steps(workdir) == list(range(LAST + 1))
    return workdir


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def truncate(folder: Path) -> str:
    victim = largest_file(folder / "state")
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    return f"{victim.relative_to(folder)} has {victim.stat().st_size} bytes, {MANIFEST_NAME} says"


def lose_a_file(folder: Path) -> str:
    name = next(iter(json.loads((folder / MANIFEST_NAME).read_text())["files"]))
    (folder / name).unlink()
    return f"{name}, which {MANIFEST_NAME} names, is missing"


def leave_an_empty_folder(folder: Path) -> str:
    shutil.rmtree(folder)
    folder.mkdir()
    return "state/ is missing"


@pytest.mark.parametrize("damage", [truncate, lose_a_file, leave_an_empty_folder])
def test_a_torn_checkpoint_is_named_and_the_one_before_it_continues(rows_dir, finished, tmp_path, damage):
    """Fault 8. Beside it lies what a save that was killed has left."""
    workdir = cut_back(finished, tmp_path / "run", HERE)
    damage_found = damage(checkpoint(workdir, HERE))
    stale = workdir / "checkpoints" / f"{HERE + 1}.orbax-checkpoint-tmp"
    shutil.copytree(checkpoint(workdir, HERE - 1), stale)
    [(status, out, error)] = finish(start(words(rows_dir, workdir)))
    assert status == 0, error
    assert f"Checkpoint {HERE} in {workdir / 'checkpoints'} is damaged: {damage_found}" in error
    assert f"Taking step {HERE - 1} instead." in error
    assert f"Resuming from step {HERE - 1}" in out
    assert (workdir / "checkpoints" / f"{HERE}.corrupt").is_dir(), "kept, for whoever wants to look at it"
    assert not stale.exists()
    assert_same_run(rows_dir, workdir, finished)


WITH_LITTLE_ROOM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.argv[2], sys.argv[2:])
"""


def with_little_room(room: int, command: list[str]) -> list[str]:
    """Return the command to which the kernel refuses files beyond `room` bytes, as a full disk does."""
    return [sys.executable, "-c", WITH_LITTLE_ROOM, str(room), *command]


def test_a_checkpoint_that_finds_no_room_ends_the_run_and_the_one_before_it_stands(
    rows_dir, finished, tmp_path
):
    """Fault 9. The log has room. Around our line, Orbax logs errors of its own."""
    workdir = cut_back(finished, tmp_path / "run", HERE)
    room, checkpoints = 20_000, workdir / "checkpoints"
    assert (workdir / "metrics.jsonl").stat().st_size < room < largest_file(checkpoints).stat().st_size
    before = digests(checkpoints)
    command = words(rows_dir, workdir)
    [(status, _, error)] = finish(start(with_little_room(room, command)))
    assert status == 2
    [refusal] = [line for line in error.splitlines() if line.startswith("error: ")]
    assert f"Saving step {HERE + 1} to {checkpoints} failed: " in refusal
    assert f"The checkpoint of step {HERE} stands; the same command resumes from it. Free space" in refusal
    assert saved_steps(workdir)[-1] == HERE
    after = digests(checkpoints)
    assert {name: after[name] for name in before} == before
    [out] = run(command)
    assert f"Resuming from step {HERE}" in out
    assert_same_run(rows_dir, workdir, finished)


def test_a_log_that_finds_no_room_ends_the_run_with_what_to_do(rows_dir, finished, tmp_path):
    """Fault 9, long before the next checkpoint."""
    workdir = cut_back(finished, tmp_path / "run", HERE)
    room = (workdir / "metrics.jsonl").stat().st_size - 500
    command = words(rows_dir, workdir, "--config.checkpoint_every_steps=20")
    error = refused(with_little_room(room, command))
    assert f"Cannot write {workdir / 'metrics.jsonl'}: File too large. Free space" in error
    assert "the same command resumes from the last checkpoint" in error
    [out] = run(command)
    assert f"Resuming from step {HERE}" in out
    assert_same_run(rows_dir, workdir, finished)


def test_a_run_that_diverges_ends_before_it_saves_what_is_not_finite(rows_dir, finished, tmp_path):
    """Fault 11: at this rate activations overflow at once."""
    workdir = cut_back(finished, tmp_path / "run", HERE)
    before = digests(checkpoint(workdir, HERE))
    hot = ("--config.opt.learning_rate=1e38", "--config.max_skipped_steps=3")
    error = refused(words(rows_dir, workdir, *hot))
    assert "as the 2 before it; training stopped, and none of these steps changed a parameter" in error
    assert "Resume from the last checkpoint with a lower --config.opt.learning_rate" in error
    assert digests(checkpoint(workdir, HERE)) == before
    assert HERE < saved_steps(workdir)[-1] < LAST
    assert_finite(newest_state(rows_dir, workdir))


POISONED = """
import sys
import jax.numpy as jnp
from eelbert_jax.__main__ import main
from eelbert_jax.training import step
first, last = int(sys.argv[1]), int(sys.argv[2])
apply = step.apply_gradients
def poisoned(state, loss, *rest):
    bad = (state.step + 1 >= first) & (state.step + 1 <= last)
    return apply(state, jnp.where(bad, jnp.nan, loss), *rest)
step.apply_gradients = poisoned
sys.exit(main(sys.argv[3:]))
"""


def test_steps_that_are_not_finite_change_nothing_and_are_counted(rows_dir, finished, tmp_path):
    """Fault 11. The losses of two updates are NaN."""
    workdir = cut_back(finished, tmp_path / "run", HERE)
    bad = {HERE + 2, HERE + 3}
    [out] = run([sys.executable, "-c", POISONED, *map(str, sorted(bad)), *words(rows_dir, workdir)[3:]])
    assert {step for step, count in figures(workdir, "skipped_steps").items() if count} == bad
    assert out.count("1 steps skipped: not finite") == 2
    losses, uncut = figures(workdir, "train_loss"), figures(finished, "train_loss")
    assert losses.keys() == uncut.keys() - bad
    assert losses[HERE + 1] == uncut[HERE + 1]
    assert losses[LAST] != uncut[LAST], "the skipped updates are missing"
    before, skipped, after = (
        newest_state(rows_dir, cut_back(workdir, tmp_path / str(step), step))
        for step in (HERE + 1, HERE + 3, LAST)
    )
    assert_same_values(before, skipped)
    assert_finite(after)


def test_a_damaged_shard_is_named_and_the_workdir_stays_as_it_was(rows_dir, finished, tmp_path):
    """Fault 13, as the checksums find it: before anything is trained."""
    rows = shutil.copytree(rows_dir, tmp_path / "rows")
    shard = next((rows / "train").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    workdir = cut_back(finished, tmp_path / "run", HERE)
    before = digests(workdir)
    error = refused(words(rows, workdir))
    assert str(shard) in error
    assert "has SHA-256" in error
    assert "copy it again or prepare again" in error
    assert digests(workdir) == before


def test_an_id_out_of_range_is_named_and_with_the_shard_mended_the_run_goes_on(rows_dir, finished, tmp_path):
    """Fault 13, where checksums are not asked for: the row is named by the step that reads it."""
    rows = shutil.copytree(rows_dir, tmp_path / "rows")
    shard = next((rows / "train").iterdir())
    opened = Rows.open(rows, "train")
    row = int(row_indices(0, HERE + 2, 8, len(opened))[3])
    byte = (row * opened.row_length + 5) * 2
    whole = shard.read_bytes()
    shard.write_bytes(whole[:byte] + b"\xff\xff" + whole[byte + 2 :])
    workdir = cut_back(finished, tmp_path / "run", HERE)
    command = words(rows, workdir, "--config.data.verify=false")
    error = refused(command)
    size = opened.vocabulary.size
    assert f"{shard}, row {row}, byte {byte}: id 65535 is not below the vocabulary's size {size}." in error
    assert "copy it again or prepare again" in error
    assert saved_steps(workdir) == list(range(HERE + 3))
    shard.write_bytes(whole)
    [out] = run(command)
    assert f"Resuming from step {HERE + 2}" in out
    assert_same_run(rows_dir, workdir, finished)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.total_stepz=20", "'config.total_stepz'; did you mean 'config.total_steps'?"),
        ("--config.total_steps=many", "config.total_steps"),
        ("--config=configs/pretrain.py:uno,setting=small", "model.hidden_size: saved 32, wanted "),
        ("--config.model.hash.base=37", "hash: saved '"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_difference(rows_dir, finished, tmp_path, change, message):
    """Faults 15 and 16: an unknown key, a wrong type, another size, another hash."""
    workdir = cut_back(finished, tmp_path / "run", HERE)
    before = digests(workdir)
    error = refused(words(rows_dir, workdir, change))
    assert message in error
    assert digests(workdir) == before


def test_an_exported_model_under_another_hash_is_refused(finished, tmp_path):
    """Fault 16, where the vectors came with the model."""
    model = load(finished)
    folder = tmp_path / "exported"
    write_folder(folder, model.config, model.vocabulary, model.params, lowercase=model.lowercase)
    config = json.loads((folder / "config.json").read_text())
    config["eelbert_jax"]["hash"]["base"] = 37
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "eelbert_jax", "predict", f"--checkpoint={folder}", "--fill_mask"]
    error = refused([*command, "--text=the [MASK] ran over the field ."])
    assert "the word embeddings are not the vectors of the hash in config.json" in error


def test_a_finished_run_started_again_does_nothing(rows_dir, finished, tmp_path):
    """Fault 17; and 15, where it is asked for with another seed."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    before = digests(workdir)
    error = refused(words(rows_dir, workdir, "--config.seed=5"))
    assert "is finished, and was trained otherwise: seed: 0, now 5." in error
    assert digests(workdir) == before
    [out] = run(words(rows_dir, workdir))
    assert "is finished: nothing to do." in out
    after = digests(workdir)
    del before["config.json"], after["config.json"]  # tells where the run was started last
    assert after == before


def assert_finite(state: TrainState) -> None:
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def largest_change(one, other) -> float:
    pairs = zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True)
    return max(float(np.max(np.abs(np.asarray(left) - np.asarray(right)))) for left, right in pairs)


def test_the_rate_is_zero_at_step_0_and_the_peak_where_the_warm_up_ends(rows_dir, finished, tmp_path):
    """Fault 17: what a whole run does at the ends of the schedule. Adam moves a parameter by the rate."""
    states = [newest_state(rows_dir, cut_back(finished, tmp_path / str(step), step)) for step in range(4)]
    assert largest_change(states[0], states[1]) == 0.0
    np.testing.assert_allclose(largest_change(states[1], states[2]), 0.5e-3, rtol=0.05)
    np.testing.assert_allclose(largest_change(states[2], states[3]), 1e-3, rtol=0.05)


def test_step_900000_is_the_last_and_its_rate_is_nearly_zero(rows_dir, finished, tmp_path):
    """Fault 17: the end of the paper's schedule, from a checkpoint that is moved to the step before it."""
    workdir = tmp_path / "run"
    last, treedef = jax.tree.flatten(newest_state(rows_dir, finished))
    counts = [index for index, leaf in enumerate(last) if leaf.ndim == 0]
    for index in counts:
        last[index] = jnp.int32(899_999)
    late = treedef.unflatten(last)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints.save(late, checkpoint_terms(rows_dir)[1])
    long = ("--config.total_steps=900000", "--config.opt.warmup_steps=10000")
    [out] = run(words(rows_dir, workdir, *long))
    assert "Resuming from step 899999" in out
    assert saved_steps(workdir) == [899_999, 900_000]
    assert figures(workdir, "train_loss").keys() == {900_000}
    after = newest_state(rows_dir, workdir)
    assert 0 < largest_change(late, after) < 1e-8
    assert {int(jax.tree.leaves(after)[index]) for index in counts} == {900_000}


def test_a_second_run_in_a_workdir_is_refused_and_the_first_goes_on(rows_dir, finished, tmp_path):
    """Fault 18. The first stands still meanwhile."""
    workdir, gate = cut_back(finished, tmp_path / "run", HERE), tmp_path / "gate"
    first = start(held_at(HERE + 2, words(rows_dir, workdir), gate))
    wait_until_held(gate, first)
    error = refused(words(rows_dir, workdir))
    assert f"Another process works in '{workdir}'" in error
    assert "take another --workdir" in error
    assert first[0].poll() is None
    gate.touch()
    [(status, _, error)] = finish(first)
    assert status == 0, error
    assert_same_run(rows_dir, workdir, finished)
