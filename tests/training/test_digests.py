"""Damaged checkpoints: noticed by the digests of their files, named and passed over."""

import json
from pathlib import Path

import orbax.checkpoint as ocp
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.training import digests
from eelbert_jax.training.checkpoint import Checkpoints
from eelbert_jax.training.digests import MANIFEST_NAME
from support.checkpoints import IDENTITY, flip_bit, halve, names, one_file, restored, save, state_at

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
    with Checkpoints(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"1", "2.corrupt"}, "gone before a save begins"
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
