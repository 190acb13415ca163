"""The run around the loop: where it starts, what it saves and writes, when it is finished.

Order of a start: own workdir > what the caller names (a checkpoint, an imported encoder) > scratch.
"""

import contextlib
import dataclasses
import functools
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

import eelbert_jax
from eelbert_jax import store
from eelbert_jax.errors import Preempted, UserError
from eelbert_jax.subwords import save_tokenizer
from eelbert_jax.training import loop
from eelbert_jax.training.ahead import read_ahead
from eelbert_jax.training.checkpoint import Checkpoints, check_identity
from eelbert_jax.training.loop import LoopConfig
from eelbert_jax.training.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer, trained
from eelbert_jax.training.sharding import Layout, placed
from eelbert_jax.training.step import Objective, TrainState, initializer, make_train_step
from eelbert_jax.training.supervision import Goodput, Supervision, supervise
from eelbert_jax.training.writer import Writer, read_metrics
from eelbert_jax.vocabulary import Vocabulary
from eelbert_jax.workdir import (
    BEST_NAME,
    CHECKPOINTS_NAME,
    CONFIG_NAME,
    METRICS_NAME,
    changed_settings,
    locked,
    write_json,
)


class Start(NamedTuple):
    """Where a run without a checkpoint of its own starts, and what the log says of it.

    Attributes:
      params: gives, for parameters as shape structs, the part of them that does not start at random.
      is_candidate: nothing starts at random, so that the best step may be step 0.
    """

    text: str
    params: Callable[[Any], Any] = lambda like: {}
    is_candidate: bool = False


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """What a run is besides its objective.

    Attributes:
      seed: of the first parameters and the dropout.
      keep_checkpoints: newest that stay.
      keep_every_steps: also keep multiples of this.
      patience: end after so many evaluations without a better one; None: never.
      free_settings: what may differ between the starts of a run; see `workdir.changed_settings`.
      calls_ahead: so many calls' batches are read before the device asks for them.
      refuses_changes: refuse other settings; otherwise only where nothing is left to train with them.
    """

    durations: LoopConfig
    optimizer: OptimizerConfig
    seed: int
    passes: int = 1
    calls_ahead: int = 0
    keep_checkpoints: int = 1
    keep_every_steps: int | None = None
    tensorboard: bool = False
    patience: int | None = None
    free_settings: Sequence[str] = ()
    refuses_changes: bool = False

    def __post_init__(self) -> None:
        """Check the ranges; the parts of the config check their own."""
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must lie in [0, 2**32), got {self.seed}.")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience_evals must be at least 1 or empty, got {self.patience}.")
        learning_rate_schedule(self.optimizer, self.durations.total_steps)  # its warm-up has to fit


class Outcome(NamedTuple):
    """Figures of the last step, those of the best one (None before it is trained), seconds of all starts."""

    figures: dict[str, float]
    best: dict[str, float] | None
    seconds: float


@contextlib.contextmanager
def run_in(workdir: Path, job: str, watchdog_seconds: float) -> Iterator[Supervision]:
    """Watch over the block and keep other runs and jobs out of the workdir; the run's clock begins here."""
    lock = locked(workdir, job) if jax.process_index() == 0 else contextlib.nullcontext()
    with supervise(Goodput(), watchdog_seconds) as supervision, store.explained(workdir), lock:
        yield supervision


def fit(
    objective: Objective,
    config: FitConfig,
    layout: Layout,
    workdir: Path,
    *,
    start: Start,
    identity: Mapping[str, Any],
    record: Mapping[str, Any],
    vocabulary: Vocabulary,
    supervision: Supervision,
) -> Outcome:
    """Train to the end, resuming what the workdir holds; a finished run is left as it is.

    Args:
      workdir: receives config, metrics, vocabulary, `checkpoints/` and, where the objective keeps it,
        `best/`.
      start: for a workdir without a checkpoint.
      identity: what the checkpoints are of.
      record: becomes `config.json`.

    Raises:
      UserError: the checkpoint is of another model, or settings have changed that may not.
      NonFiniteLoss: too many losses or gradients in a row, or a parameter, are NaN or infinite.
      Preempted: the machine asked for the end; the step reached is saved.
    """
    total_steps = config.durations.total_steps
    optimizer = make_optimizer(config.optimizer, total_steps)
    with _checkpoints(objective, config, workdir) as (checkpoints, best_checkpoints):
        supervision.watchdog.beat()  # not before: all wait while process 0 copies and verifies rows
        saved_step = checkpoints.latest_step()
        if saved_step is not None:
            check_identity(checkpoints.identity(), identity, checkpoints.directory)
            _check_settings(config, workdir, record, saved_step)
        records = read_metrics(workdir / METRICS_NAME)
        kept = [line for line in records if saved_step is not None and line["step"] <= saved_step]
        # Untrained parameters are no candidate, unless the run only evaluates.
        first_candidate = 0 if start.is_candidate else min(1, total_steps)
        figures = _Figures(objective, supervision, kept, config.patience, first_candidate)
        goodput = supervision.goodput
        goodput.resume(records, saved_step)
        if figures.of(saved_step) and (saved_step == total_steps or figures.stalled()):
            _say(f"The run in {workdir} is finished: nothing to do.")
            return Outcome(figures.of(saved_step), figures.best, goodput.total())
        state = _start_state(objective, config, layout, optimizer, workdir, checkpoints, start, identity)
        if config.optimizer.trainable:
            _say(_trained_share(config.optimizer, state.params))
        is_writer = jax.process_index() == 0
        if is_writer:  # only now: a refused start leaves what the folder holds as it is
            write_json(workdir / CONFIG_NAME, record)
            save_tokenizer(vocabulary, workdir)

        def save(state: TrainState) -> None:
            writer.sync()  # a start that resumes from this step finds its records
            if best_checkpoints is not None and figures.best and figures.best["step"] == int(state.step):
                best_checkpoints.save(state, identity)
                best_checkpoints.wait()  # a run that resumes from this step finds its best one
            checkpoints.save(state, identity)

        workdir_if_writer = workdir if is_writer else None
        steps = range(int(state.step), total_steps, config.durations.steps_per_call)
        with (
            read_ahead(objective.next_batch, steps, config.calls_ahead) as next_batch,
            Writer(workdir_if_writer, total_steps, saved_step, tensorboard=config.tensorboard) as writer,
            _last_save_awaited(checkpoints, goodput, writer),
        ):
            _, last = loop.run(
                state,
                config=config.durations,
                train_step=_train_step(objective, config, optimizer, layout),
                next_batch=next_batch,
                evaluate=figures.evaluate,
                save=save,
                stop=figures.stalled,
                saved_step=saved_step,
                learning_rate=learning_rate_schedule(config.optimizer, total_steps),
                writer=writer,
                supervision=supervision,
            )
    return Outcome(last, figures.best, goodput.total())


@contextlib.contextmanager
def _checkpoints(
    objective: Objective, config: FitConfig, workdir: Path
) -> Iterator[tuple[Checkpoints, Checkpoints | None]]:
    with contextlib.ExitStack() as stack:
        to_resume = Checkpoints(
            workdir / CHECKPOINTS_NAME, keep=config.keep_checkpoints, keep_every_steps=config.keep_every_steps
        )
        stack.enter_context(to_resume)
        best = stack.enter_context(Checkpoints(workdir / BEST_NAME)) if objective.keeps_best else None
        yield to_resume, best


@contextlib.contextmanager
def _last_save_awaited(checkpoints: Checkpoints, goodput: Goodput, writer: Writer) -> Iterator[None]:
    """Where the block ends or is preempted, wait for the last save and note where the time went."""
    preempted = None
    try:
        yield
    except Preempted as error:
        preempted = error
    with goodput.during("checkpoint"):
        checkpoints.wait()
    writer.note(goodput.summary())
    if preempted is not None:
        raise preempted


def _train_step(objective: Objective, config: FitConfig, optimizer: Any, layout: Layout) -> Any:
    """Return the jitted (state, batches of K steps) -> (state, metrics, each [K])."""
    train_step = make_train_step(
        objective,
        optimizer,
        layout,
        seed=config.seed,
        passes=config.passes,
        trained=functools.partial(trained, config.optimizer) if config.optimizer.trainable else None,
    )
    return lambda state, batches: train_step(state, objective.constants, batches)


class _Figures:
    """Evaluate, and remember the best step, from the records of a resumed run on."""

    def __init__(
        self,
        objective: Objective,
        supervision: Supervision,
        records: Sequence[dict],
        patience: int | None,
        first_candidate: int,
    ) -> None:
        self._patience = patience
        self._first_candidate = first_candidate
        self._objective = objective
        self._beat = supervision.watchdog.beat
        self._evaluations_since_best = 0
        self._records = [record for record in records if objective.main_figure in record]
        self.best: dict[str, float] | None = None
        for record in self._records:
            self._remember(record)

    def of(self, step: int | None) -> dict[str, float]:
        """Return the figures that an earlier start recorded of a step, {} for none."""
        found = [record for record in self._records if record["step"] == step]
        return {name: value for name, value in found[-1].items() if name != "step"} if found else {}

    def stalled(self) -> bool:
        """Whether so many evaluations brought nothing better that the run is to end."""
        if self._patience is None or self.best is None:
            return False
        return self._evaluations_since_best >= self._patience

    def evaluate(self, state: TrainState) -> dict[str, float]:
        figures = self._objective.evaluate(state, self._beat)
        self._remember({"step": int(state.step), **figures})
        return figures

    def _remember(self, record: dict[str, float]) -> None:
        name = self._objective.main_figure
        is_candidate = record["step"] >= self._first_candidate
        self._evaluations_since_best += 1
        if is_candidate and (self.best is None or record[name] > self.best[name]):
            self.best, self._evaluations_since_best = record, 0


def _start_state(
    objective: Objective,
    config: FitConfig,
    layout: Layout,
    optimizer: Any,
    workdir: Path,
    checkpoints: Checkpoints,
    start: Start,
    identity: Mapping[str, Any],
) -> TrainState:
    if checkpoints.latest_step() is None:
        _say(start.text)
        return fresh_state(objective, optimizer, layout, start, config.seed)
    state = checkpoints.restore(state_like(objective, optimizer, layout), identity)
    _say(f"Resuming from step {int(state.step)} of {workdir}.")
    return state


def fresh_state(objective: Objective, optimizer: Any, layout: Layout, start: Start, seed: int) -> TrainState:
    """Return the state at step 0."""
    like = state_like(objective, optimizer, layout)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    init = initializer(objective.init, optimizer)
    state = jax.jit(init, out_shardings=shardings)(jax.random.key(seed))
    return state.replace(params=_overlaid(state.params, start.params(like.params)))


def state_like(objective: Objective, optimizer: Any, layout: Layout) -> TrainState:
    """Return the shapes, types and shardings of a state of these devices, which need not be here."""
    init = initializer(objective.init, optimizer)
    shapes = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    return placed(shapes, layout.state(shapes))


def _overlaid(params: Any, part: Any) -> Any:
    """Return parameters with those of `part`, a tree of some of their paths, in their places."""
    if not isinstance(params, Mapping):
        return jax.device_put(part, params.sharding)
    return {name: _overlaid(value, part[name]) if name in part else value for name, value in params.items()}


def _check_settings(config: FitConfig, workdir: Path, record: Mapping[str, Any], saved_step: int) -> None:
    """Print what is set otherwise than when the run was begun; refuse where that may not be."""
    changed = "; ".join(changed_settings(record, workdir, config.free_settings))
    if not changed:
        return
    if config.refuses_changes:
        raise UserError(
            f"The run in {workdir} was begun with other settings: {changed}. Take another --workdir for "
            "these."
        )
    if saved_step == config.durations.total_steps:
        raise UserError(
            f"The run in {workdir} is finished, and was trained otherwise: {changed}. Take another --workdir "
            "for these settings, or a higher --config.total_steps to train on with them."
        )
    _say(f"From here on with other settings than before: {changed}.")


def _trained_share(optimizer: OptimizerConfig, params: Any) -> str:
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    taken = sum(
        size
        for size, is_trained in zip(sizes, jax.tree.leaves(trained(optimizer, params)), strict=True)
        if is_trained
    )
    return f"Training {taken:,} of {sum(sizes):,} parameters, those of {optimizer.trainable!r}."


def _say(text: str) -> None:
    """Print once a run, whatever the number of its processes."""
    if jax.process_index() == 0:
        print(text, flush=True)


def environment() -> dict[str, Any]:
    """Return versions, devices, processes and, of a checkout, the commit."""
    return {
        "eelbert_jax": eelbert_jax.__version__,
        "commit": _commit(Path(eelbert_jax.__file__).parents[1]),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
    }


def _commit(checkout: Path) -> str | None:
    """Return the commit of the project's own checkout, with "+" if files differ from it; None elsewhere."""
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    git = ["git", "-C", str(checkout)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changes = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changes.stdout.strip() else "") or None
