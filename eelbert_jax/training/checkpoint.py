"""Save and restore a `TrainState`; the only importer of Orbax.

Beside the state lies its identity (sizes, vocabulary, hash), so that a checkpoint of something else is
refused with the difference instead of restored into nonsense.
"""

from pathlib import Path
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

from eelbert_jax.errors import UserError
from eelbert_jax.training.state import TrainState


def differences(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line a leaf in which two identities differ: `path: saved X, wanted Y`."""
    lines = []
    for name in sorted(saved.keys() | wanted.keys()):
        left, right = saved.get(name), wanted.get(name)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differences(left, right, f"{prefix}{name}.")
        elif left != right:
            lines.append(f"{prefix}{name}: saved {left!r}, wanted {right!r}")
    return lines


def check_identity(saved: dict[str, Any], wanted: dict[str, Any], directory: Path) -> None:
    """Raise a `UserError` listing the differences unless both identities are equal."""
    lines = differences(saved, wanted)
    if lines:
        raise UserError(
            f"The checkpoint in {directory} is of another model:\n  "
            + "\n  ".join(lines)
            + "\nUse the configuration it was trained with, or another workdir."
        )


class Checkpoints:
    """The checkpoints of one run: `directory/STEP/`.

    Saving blocks until the checkpoint is committed, so that what `latest_step` names can be restored.

    Args:
      directory: where the checkpoints lie.
      create: make the directory where it is missing, to save into it; False only reads.
      keep: newest checkpoints that stay.
      keep_every_steps: also keep every checkpoint whose step is a multiple of it; None keeps no others.

    Raises:
      UserError: the directory cannot be made, or is missing though only to be read.
    """

    def __init__(
        self, directory: Path, *, create: bool = True, keep: int = 1, keep_every_steps: int | None = None
    ) -> None:
        self.directory = directory.absolute()
        if not create and not self.directory.is_dir():
            raise UserError(f"No checkpoints at {directory}; name the workdir of a run that has saved one.")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot write checkpoints to {directory} ({error.strerror}); choose a workdir you may write."
            ) from error
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, keep_period=keep_every_steps, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_names=("state", "identity")
        )

    def latest_step(self) -> int | None:
        """Return the step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, identity: dict[str, Any]) -> None:
        """Write the state and its identity as one checkpoint and wait for the commit."""
        step = int(state.step)
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), identity=ocp.args.JsonSave(identity))
        self._manager.save(step, args=items, force=True)
        self._manager.wait_until_finished()

    def wait(self) -> None:
        """Wait until what was saved is committed."""
        self._manager.wait_until_finished()

    def _step_or_error(self) -> int:
        step = self.latest_step()
        if step is None:
            raise UserError(f"No checkpoint in {self.directory}; train one first or correct the path.")
        return step

    def identity(self) -> dict[str, Any]:
        """Return the identity saved with the newest checkpoint."""
        items = ocp.args.Composite(identity=ocp.args.JsonRestore())
        return self._manager.restore(self._step_or_error(), args=items)["identity"]

    def restore(self, like: TrainState, identity: dict[str, Any]) -> TrainState:
        """Return the newest state.

        Args:
          like: a state of the wanted shapes, types and shardings (arrays or shape structs).
          identity: what the checkpoint has to be of.

        Raises:
          UserError: there is no checkpoint, or it is of another model.
        """
        step = self._step_or_error()
        check_identity(self.identity(), identity, self.directory)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(like))
        return self._manager.restore(step, args=items)["state"]

    def restore_params(self, like: Any, identity: dict[str, Any] | None = None) -> Any:
        """Return the newest parameters alone, without the optimizer's slots.

        Args:
          like: parameters of the wanted shapes and shardings (arrays or shape structs).
          identity: what the checkpoint has to be of; None takes it as it is.
        """
        step = self._step_or_error()
        if identity is not None:
            check_identity(self.identity(), identity, self.directory)
        wanted = {"params": like}
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
        )
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(self.directory / str(step) / "state", args=arguments)["params"]

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.close()
