"""Checkpoints: what is saved is what is restored, and no failed save loses what stands."""

import contextlib
import resource

import jax
import orbax.checkpoint as ocp
import pytest
from jax.experimental import multihost_utils

from eelbert_jax.errors import UserError
from eelbert_jax.training.checkpoint import Checkpoints
from support.checkpoints import IDENTITY, assert_state, flip_bit, one_file, restored, save, state_at


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


def test_a_save_asks_nothing_of_preemption(tmp_path, monkeypatch):
    """Of several processes it would move the step at which they agree to end, beyond the run's questions."""
    asked = []
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", asked.append)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state_at(1), IDENTITY)
    assert restored(tmp_path) == 1
    assert not asked
    ocp.utils.reached_preemption(2)
    assert asked == [2], "Orbax asks by another name: this test sees nothing"


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


def test_a_failed_save_does_not_hide_why_the_run_ended(
    tmp_path, capsys
):  # in memory: the limit would cut a captured file too
    def train():
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state_at(2), IDENTITY)
            raise KeyError("the cause")

    with no_room_for_files_beyond(8_000), pytest.raises(KeyError, match="the cause"):
        train()
    assert "Saving step 2" in capsys.readouterr().err


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
