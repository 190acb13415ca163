"""Save and restore a `TrainState` with its identity (sizes, vocabulary, hash); the only importer of Orbax."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.training import digests, staged
from eelbert_jax.training.step import TrainState

ITEMS = ("state", "identity")
"""The folders of a checkpoint."""
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_NONE, _ALL_BAD = -1, -2


UNRECORDED = {"task.mean": 0.0, "task.std": 1.0}
"""What older versions did by a value of an identity that they did not record."""


def differences(saved: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return one line a leaf in which two identities differ: `path: saved X, wanted Y`."""
    lines = []
    for name in sorted(saved.keys() | wanted.keys()):
        path, right = f"{prefix}{name}", wanted.get(name)
        # Of a task older versions recorded its name and labels alone.
        left = saved.get(name, UNRECORDED.get(path, right if prefix == "task." else None))
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, f"{path}.")
        elif left != right:
            lines.append(f"{path}: saved {left!r}, wanted {right!r}")
    return lines


def check_identity(saved: Mapping[str, Any], wanted: Mapping[str, Any], directory: epath.PathLike) -> None:
    """Raise a `UserError` listing the differences unless both identities are equal."""
    lines = differences(saved, wanted)
    if lines:
        raise UserError(
            f"The checkpoint in {directory} is of another model:\n  "
            + "\n  ".join(lines)
            + "\nUse the configuration it was trained with, or another workdir."
        )


class _Manager(ocp.CheckpointManager):
    """Never asks whether the machine wants the run to end, as Orbax does at every save.

    `supervision.Preemption` asks, under numbers of its own. Processes agree on the number that follows the
    last one asked: after one of Orbax's, a step, none that is asked later may ever be it.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Checkpoints:
    """The checkpoints of one run, `directory/STEP/`, as a context manager; `gs://` directories will do, and
    `s3://` by way of a folder here (`staged`), from one process.

    Opening holds the newest checkpoint against its manifest. A damaged one is named on stderr and passed
    over; with `create` it is renamed to `STEP.corrupt`, and what killed saves have left is removed. Of
    several processes, process 0 does this and tells the others. A `UserError` where none is good.

    Saving returns once the state is copied off the devices and writes in the background: the manifest, the
    commit (a rename), then the deletion of what `keep` and `keep_every_steps` (multiples of it stay) let go.
    A kill at any moment leaves the newest committed checkpoint with its manifest. A failed save is raised by
    the next call here.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        create: bool = True,
        keep: int = 1,
        keep_every_steps: int | None = None,
    ) -> None:
        path = epath.Path(store.folder(directory))
        self.directory = path if path.is_absolute() else path.absolute()  # gs:// is absolute as it is
        if staged.is_staged(self.directory) and jax.process_count() > 1:
            raise UserError(
                f"{directory}: s3:// takes the checkpoints of one process; those of a job of several lie in "
                "a folder that all hosts see, or at gs://."
            )
        if not create and not self.directory.is_dir():
            raise UserError(f"No checkpoints at {directory}; name the workdir of a run that has saved one.")
        try:
            if not staged.is_staged(self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot write checkpoints to {directory} ({error.strerror}); choose a workdir you may write."
            ) from error
        self._newest = _agree_on_newest_good(self.directory, create)
        self._saving: int | None = None
        self._manager = self._open_manager(keep, keep_every_steps) if create else None

    def _open_manager(
        self, keep: int, keep_every_steps: int | None
    ) -> ocp.CheckpointManager | staged.StagedManager:
        is_staged = staged.is_staged(self.directory)
        self._saved_to = staged.make_folder(self.directory) if is_staged else self.directory
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if is_staged else keep,
            keep_period=keep_every_steps,
            cleanup_tmp_directories=False,  # by a thread that may outlive the interpreter; opening does it
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._complete),
        )
        manager = _Manager(self._saved_to, options=options, item_names=ITEMS)
        if not is_staged:
            return manager
        return staged.StagedManager(manager, self._saved_to, self.directory, keep, keep_every_steps)

    def _complete(self) -> None:
        """Complete the checkpoint being saved: Orbax calls this on process 0, before it commits."""
        step = str(self._saving)
        temporary = [
            path
            for path in self._saved_to.iterdir()
            if path.name.startswith(f"{step}{ocp.utils.TMP_DIR_SUFFIX}")
        ]
        # An object store knows no rename: there the folder has its name from the start.
        folder = temporary[0] if temporary else self._saved_to / step
        digests.write_manifest(folder, ITEMS)
        if isinstance(self._manager, staged.StagedManager):
            self._manager.put(folder, int(step), ITEMS)

    def latest_step(self) -> int | None:
        """Return the step of the newest good checkpoint, or None; wait for a save under way."""
        self.wait()
        return self._newest

    def save(self, state: TrainState, identity: Mapping[str, Any]) -> None:
        """Copy the state off the devices and begin to write it with its identity; it may be donated at once.

        Checkpoints of this step and later ones are of a course that the run has left: they are deleted.
        """
        if self._manager is None:
            raise RuntimeError(f"{self.directory} was opened to read: open it with create=True to save.")
        self.wait()
        step = int(state.step)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), identity=ocp.args.JsonSave(dict(identity))
        )
        self._saving = step
        with self._explained(self._manager):
            for left in [left for left in self._manager.all_steps() if left >= step]:
                self._manager.delete(left)
                self._newest = max(self._manager.all_steps(), default=None)
            self._manager.save(step, args=items, force=True)

    def wait(self) -> None:
        """Wait until the last save is committed; what was committed before a failed one stands."""
        if self._manager is None or self._saving is None:
            return
        with self._explained(self._manager):
            self._manager.wait_until_finished()
        self._newest, self._saving = self._saving, None

    @contextlib.contextmanager
    def _explained(self, manager: ocp.CheckpointManager | staged.StagedManager) -> Iterator[None]:
        """Turn the storage's refusals into a `UserError`; others (a lost peer) may pass on a new try."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not _is_refusal(error):
                raise
            step, self._saving = self._saving, None
            manager.reload()  # it has forgotten already what the save was to replace
            stands = (
                "No checkpoint was saved before it."
                if self._newest is None
                else f"The checkpoint of step {self._newest} stands; the same command resumes from it."
            )
            raise UserError(
                f"Saving step {step} to {self.directory} failed: {_first_line(error)}. {stands} "
                "Free space or get leave to write there first."
            ) from error

    def _step_or_error(self) -> int:
        step = self.latest_step()
        if step is None:
            raise UserError(f"No checkpoint in {self.directory}; train one first or correct the path.")
        return step

    def _read(self, item: str, handler: ocp.CheckpointHandler, arguments: Any) -> Any:
        folder = self.directory / str(self._step_or_error())
        with staged.local_copy(folder / item) as files, ocp.Checkpointer(handler) as reader:
            try:
                return reader.restore(files, args=arguments)
            except Exception as error:  # Orbax raises plain ones too
                if (folder / digests.MANIFEST_NAME).exists():
                    raise  # the files are as they were written: a defect
                raise UserError(
                    f"The checkpoint of step {folder.name} in {self.directory} cannot be restored "
                    f"({_first_line(error.__cause__ or error)}), and no {digests.MANIFEST_NAME} tells which "
                    f"file is damaged: move {folder} away to take the one before it."
                ) from error

    def identity(self) -> dict[str, Any]:
        """Return the identity saved with the newest good checkpoint."""
        return self._read("identity", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())

    def restore(self, like: TrainState, identity: Mapping[str, Any]) -> TrainState:
        """Return the newest good state as `like` (arrays or shape structs) lies; refuse another model's."""
        check_identity(self.identity(), identity, self.directory)
        return self._read("state", ocp.StandardCheckpointHandler(), ocp.args.StandardRestore(like))

    def restore_params(self, like: Any, identity: Mapping[str, Any] | None = None) -> Any:
        """Return the newest good parameters alone; without `identity` those of any model."""
        if identity is not None:
            check_identity(self.identity(), identity, self.directory)
        wanted = {"params": like}
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        return self._read("state", ocp.PyTreeCheckpointHandler(), arguments)["params"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last save; where another exception passes through, its failure is only printed."""
        if self._manager is None:
            return
        try:
            try:
                self.wait()
            finally:
                self._manager.close()
        except Exception as failure:
            if error is None:
                raise
            print(f"eelbert: {failure}", file=sys.stderr, flush=True)


def _is_refusal(error: Exception) -> bool:
    """Whether the storage will not take more; TensorStore tells so in a ValueError's text."""
    return any(os.strerror(number) in str(error) for number in REFUSALS)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _agree_on_newest_good(directory: epath.Path, may_change: bool) -> int | None:
    """Return the step of the newest good checkpoint, or None, as process 0 finds it."""
    code, message = _NONE, "process 0 says what is wrong with them"
    if jax.process_index() == 0:
        if may_change:
            _remove_unfinished(directory)
        choice = digests.newest_good(directory, ITEMS)
        if choice.step is not None:
            code = choice.step
            _pass_over(directory, choice, may_change)
        elif choice.bad:
            code = _ALL_BAD
            message = "; ".join(f"{step}: {damage}" for step, damage in choice.bad.items())
    code = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
    if code == _ALL_BAD:
        raise UserError(
            f"No checkpoint in {directory} is good ({message}). Bring one back from a copy, or move them "
            "away to start anew."
        )
    return None if code == _NONE else code


def _remove_unfinished(directory: epath.Path) -> None:
    """Remove what killed saves left: in a store, which knows no rename, steps without their last object."""
    for name, is_folder in digests.listing(directory).items():
        torn = name.isdecimal() and not digests.is_committed(directory / name)
        if is_folder and (torn or ocp.utils.TMP_DIR_SUFFIX in name):
            (directory / name).rmtree()


def _pass_over(directory: epath.Path, choice: digests.Choice, may_rename: bool) -> None:
    """Name damaged checkpoints on stderr, and set them aside where that is this process's to do."""
    for step, damage in choice.bad.items():
        line = f"Checkpoint {step} in {directory} is damaged: {damage}."
        if may_rename:
            line += f" It is now {_set_aside(directory / str(step), damage).name}."
        print(f"WARNING: {line} Taking step {choice.step} instead.", file=sys.stderr, flush=True)
    if not choice.is_verified:
        print(
            f"WARNING: Checkpoint {choice.step} in {directory} has no {digests.MANIFEST_NAME}: an older "
            "version wrote it, and its files cannot be verified.",
            file=sys.stderr,
            flush=True,
        )


def _set_aside(folder: epath.Path, damage: str) -> epath.Path:
    try:
        return digests.set_aside(folder)
    except OSError as error:
        raise UserError(
            f"Checkpoint {folder.name} in {folder.parent} is damaged ({damage}) and cannot be renamed: "
            f"{error.strerror or error}. Move {folder} away, or get leave to write there."
        ) from error
