"""Find the runs under some folders and read what they left: the only reader of run folders in a report.

A run is recognised by what it wrote. Leaves what the figures mean to `scores` and the tables.
"""

import dataclasses
import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from eelbert_jax.corpus.rows import read_manifest
from eelbert_jax.datasets.conll import TOKENS
from eelbert_jax.errors import UserError
from eelbert_jax.model.config import EMBEDDINGS, SIZES
from eelbert_jax.record import Fields, Result, Start
from eelbert_jax.reporting.naming import hash_changes, model_name, parameter_counts, size_of
from eelbert_jax.reporting.published import MEASURES, TASK_NAMES
from eelbert_jax.training.writer import read_metrics
from eelbert_jax.workdir import CONFIG_NAME, METRICS_NAME, RESULT_NAME, read_json


class Recipe(NamedTuple):
    """What runs have in common that are seeds of one experiment."""

    learning_rate: float
    batch_size: int
    num_epochs: float
    num_train: int


class Checkpoint(NamedTuple):
    """The pre-trained model that a fine-tuning run started from; None is what an imported one cannot know."""

    workdir: str
    step: int | None
    tokens: int | None
    heldout_loss: float | None


@dataclasses.dataclass(frozen=True)
class FineTuningRun:
    """A finished run of `eelbert finetune`, as its `result.json` has it.

    Attributes:
      folder: where it lies, as a report names it.
      task: name of the task; a name of GLUE's is an official split, one's own tasks have their size.
      official: whether the split is GLUE's.
      model_name: as the tables name models.
      size: encoder size; None for a baseline that is no BERT.
      embedding: kind of token embedder; None for such a baseline.
      parameters: trained numbers, 2-class convention.
      checkpoint: where it started; None: from scratch.
      seed: of head, dropout and order.
      recipe: the rest of what was chosen.
      selection: how the best step was chosen.
      best_step: the step of `metrics`.
      total_steps: steps of the run.
      metrics: name -> value on the development set.
      majority: the same for the answer that is the most frequent label.
      degenerate: whether one class was predicted for all examples.
      num_dev: split -> examples.
      seconds: wall-clock time.
      hardware: devices.
      commit: of the program; None where unknown.
    """

    folder: str
    task: str
    official: bool
    model_name: str
    size: str | None
    embedding: str | None
    parameters: int
    checkpoint: Checkpoint | None
    seed: int
    recipe: Recipe
    selection: str
    best_step: int
    total_steps: int
    metrics: Mapping[str, float]
    majority: Mapping[str, float]
    degenerate: bool
    num_dev: Mapping[str, int]
    seconds: float
    hardware: str
    commit: str | None


class HeldOut(NamedTuple):
    """Held-out figures after `step` updates; the loss in nats a target."""

    step: int
    loss: float
    accuracy: float
    perplexity: float


@dataclasses.dataclass(frozen=True)
class PretrainingRun:
    """A run of `eelbert pretrain`, finished or not.

    Attributes:
      folder: where it lies, as a report names it.
      path: the same on this machine.
      name: as the tables name models.
      changes: what of its hash is not the default.
      size: encoder size; None where it is none of the published ones.
      embedding: kind of token embedder.
      parameters: count by convention; empty where `parameter_counts` does not know the kind of model.
      recipe: the config's label.
      batch_size: rows a step.
      learning_rate: peak.
      seed: of everything.
      total_steps: planned.
      rows: folder of its prepared rows on the machine that trained it.
      eval_rows: held-out rows that were evaluated; None: all.
      row_length: tokens a row; None where neither the record nor rows that are here say it.
      devices: kinds of devices.
      commit: of the program; None where unknown.
      curve: held-out figures, ascending by step.
      speeds: (step, tokens/s since the step before), ascending.
    """

    folder: str
    path: Path
    name: str
    changes: tuple[str, ...]
    size: str | None
    embedding: str
    parameters: Mapping[str, int]
    recipe: str
    batch_size: int
    learning_rate: float
    seed: int
    total_steps: int
    rows: str
    eval_rows: int | None
    row_length: int | None
    devices: tuple[str, ...]
    commit: str | None
    curve: tuple[HeldOut, ...]
    speeds: tuple[tuple[int, float], ...]

    @property
    def label(self) -> str:
        """The name with the changes."""
        return ", ".join([self.name, *self.changes])

    def tokens_at(self, step: int) -> int | None:
        """Return the tokens read in `step` updates, None where the length of a row is not known."""
        return None if self.row_length is None else step * self.batch_size * self.row_length

    @property
    def seconds(self) -> float | None:
        """Training time, evaluations and saving left out; None where the length of a row is not known."""
        if self.row_length is None:
            return None
        seconds, start = 0.0, 0
        for end, speed in self.speeds:
            seconds += (end - start) * self.batch_size * self.row_length / speed
            start = end
        return seconds


class Found(NamedTuple):
    """What lies under the folders of a report; folders without a finished run are named, not dropped."""

    pretraining: tuple[PretrainingRun, ...]
    finetuning: tuple[FineTuningRun, ...]
    unfinished: tuple[str, ...]


def find_runs(roots: str) -> Found:
    """Read all runs under some folders.

    Args:
      roots: folders or glob patterns, separated by commas.

    Raises:
      UserError: a folder is not there, nothing in them is a run, or a file of a run cannot be understood.
    """
    pretraining: dict[Path, PretrainingRun] = {}
    finetuning: dict[Path, FineTuningRun] = {}
    unfinished: dict[Path, str] = {}
    for root in _expand(roots):
        for path, files in _folders(root):
            key, folder = path.resolve(), _shown(root, path)
            if RESULT_NAME in files:
                finetuning[key] = read_result(path / RESULT_NAME, folder)
                files.clear()
            elif CONFIG_NAME in files:
                config = read_json(path / CONFIG_NAME)
                if _is_pretraining(config) and METRICS_NAME in files:
                    pretraining[key] = read_pretraining(path, config, folder)
                    files.clear()
                elif "task" in config and "pretrained" in config:
                    unfinished[key] = folder
                    files.clear()
    if not (pretraining or finetuning or unfinished):
        raise UserError(
            f"No run under {roots}: a run is a folder with {RESULT_NAME} (`eelbert finetune`), or with "
            f"{CONFIG_NAME} and {METRICS_NAME} (`eelbert pretrain`)."
        )
    in_order = sorted(pretraining.values(), key=_order)
    return Found(tuple(in_order), tuple(finetuning.values()), tuple(unfinished.values()))


def _order(run: PretrainingRun) -> tuple[int, int, str]:
    """Sort by size, the table before the hashes, as the paper does."""
    size = list(SIZES).index(run.size) if run.size else len(SIZES)
    return size, EMBEDDINGS.index(run.embedding), run.folder


def _expand(roots: str) -> list[Path]:
    """Return the folders that a comma-separated list of folders and patterns names."""
    found: list[Path] = []
    for word in filter(None, (word.strip() for word in roots.split(","))):
        pattern = os.path.expanduser(word)
        folders = [Path(name) for name in sorted(glob.glob(pattern)) if os.path.isdir(name)]
        if not folders:
            raise UserError(f"No folder {word!r}; give folders of runs: --runs=DIR,DIR or a pattern.")
        found += folders
    return found


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders under `root` with their files; clearing the files keeps out of what is below."""
    for name, below, files in os.walk(root):
        had_files = bool(files)
        yield Path(name), files
        below[:] = [] if had_files and not files else sorted(below)


def _shown(root: Path, path: Path) -> str:
    """Return a folder's name without what leads to `root`, which says nothing on another machine."""
    return str(Path(root.resolve().name) / path.relative_to(root))


def read_result(path: Path, folder: str) -> FineTuningRun:
    """Read a `result.json`.

    Args:
      path: the file.
      folder: its folder as the report is to name it.

    Raises:
      UserError: a key is missing or of another type, or a metric that the papers' tables need is not there.
    """
    result = Result.read(path)
    needed = [metric for name, metric, _ in MEASURES if name == result.task]
    missing = [metric for metric in needed if metric not in result.metrics]
    if missing:
        raise Fields(path, {}, "metrics.").wrong(", ".join(missing), "is missing", (float,))
    num_dev = {split: number for split, number in result.num_examples.items() if split != "train"}
    task = result.task
    if task in ("custom", TOKENS):
        task = f"{task} ({sum(num_dev.values())} dev examples)"
    elif task in TASK_NAMES and not result.official:
        task = f"{task} (unofficial split)"
    return FineTuningRun(
        folder=folder,
        task=task,
        official=result.official,
        model_name=result.model.name,
        size=result.model.size,
        embedding=result.model.embedding,
        parameters=result.model.parameters,
        checkpoint=None if result.pretrained is None else _checkpoint(result.pretrained),
        seed=result.seed,
        recipe=Recipe(
            result.learning_rate, result.batch_size, result.num_epochs, result.num_examples["train"]
        ),
        selection=result.selection,
        best_step=result.best_step,
        total_steps=result.total_steps,
        metrics=result.metrics,
        majority=result.majority,
        degenerate=result.degenerate,
        num_dev=num_dev,
        seconds=result.seconds,
        hardware=result.hardware,
        commit=result.commit,
    )


def _checkpoint(start: Start) -> Checkpoint:
    """Return where a run started; what its record leaves out, the pre-training run says where it is here."""
    workdir = os.path.normpath(start.workdir)
    if start.tokens is None and start.heldout_loss is None:
        return read_checkpoint(workdir, start.step)
    return Checkpoint(workdir, start.step, start.tokens, start.heldout_loss)


def read_checkpoint(workdir: str, step: int | None) -> Checkpoint:
    """Return what the record of a pre-training run in `workdir` says of its checkpoint at `step`.

    Of an imported model, and of a folder that holds checkpoints without the record, it says nothing.

    Raises:
      UserError: the record cannot be understood.
    """
    path = Path(workdir).expanduser()
    has_record = (path / CONFIG_NAME).is_file() and (path / METRICS_NAME).is_file()
    config = read_json(path / CONFIG_NAME) if has_record else {}
    if step is None or not _is_pretraining(config):
        return Checkpoint(workdir, step, None, None)
    run = read_pretraining(path, config, workdir)
    losses = {point.step: point.loss for point in run.curve}
    return Checkpoint(workdir, step, run.tokens_at(step), losses.get(step))


def _is_pretraining(config: Mapping[str, Any]) -> bool:
    """Whether `eelbert pretrain` wrote a config."""
    return "mlm_probability" in config and "run" in config


def read_pretraining(path: Path, config: Mapping[str, Any], folder: str) -> PretrainingRun:
    """Read the config and the metrics of a pre-training run.

    Raises:
      UserError: a key is missing or of another type, or a line that is not the last one is torn.
    """
    null = type(None)
    fields = Fields(path / CONFIG_NAME, config)
    run, data = fields.group("run"), fields.group("data")
    model = run.group("identity").take("model", dict)
    embedding = fields.group("model").take("embedding", str)
    rows = data.take("rows", str)
    curve, speeds = _read_curves(path / METRICS_NAME)
    size = size_of(model)
    return PretrainingRun(
        folder=folder,
        path=path.resolve(),
        name=model_name(size or "other size", embedding),
        changes=hash_changes(model["hash"]),
        size=size,
        embedding=embedding,
        parameters=parameter_counts(model),
        recipe=fields.take("recipe", str),
        batch_size=fields.take("batch_size", int),
        learning_rate=fields.group("opt").take("learning_rate", float),
        seed=fields.take("seed", int),
        total_steps=fields.take("total_steps", int),
        rows=rows,
        eval_rows=data.take("eval_rows", int, null),
        row_length=_row_length(run, Path(rows)),
        devices=tuple(run.take("devices", list)),
        commit=run.take("commit", str, null),
        curve=curve,
        speeds=speeds,
    )


def _row_length(run: Fields, rows: Path) -> int | None:
    """Return the tokens of a row: from the record, else from the prepared rows where they are here."""
    if "row_length" in run:
        return run.take("row_length", int)
    return read_manifest(rows)["row_length"] if rows.is_dir() else None


def _read_curves(path: Path) -> tuple[tuple[HeldOut, ...], tuple[tuple[int, float], ...]]:
    """Return the held-out figures and the speeds that a `metrics.jsonl` records."""
    records = read_metrics(path)
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    if len(records) < num_lines - 1:
        raise UserError(
            f"{path}, line {len(records) + 1} is no JSON object, and more lines follow. Restore the file, or "
            "move the folder away."
        )
    held_out, speeds = [], []
    for number, record in enumerate(records, 1):
        fields = Fields(path, record, f"line {number}: ")
        step = fields.take("step", int)
        if "heldout_loss" in record:
            names = ("heldout_loss", "heldout_accuracy", "heldout_perplexity")
            held_out.append(HeldOut(step, *(float(fields.take(name, float)) for name in names)))
        if "tokens_per_second" in record:
            speeds.append((step, float(fields.take("tokens_per_second", float))))
    return tuple(held_out), tuple(speeds)
