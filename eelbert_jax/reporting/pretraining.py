"""Pre-training runs, and their table beside what needs no context at all."""

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eelbert_jax import store
from eelbert_jax.corpus.rows import Rows, read_manifest, unigram_accuracy, unigram_entropy
from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.model.config import BertConfig, model_name, size_of
from eelbert_jax.model.count import count_parameters
from eelbert_jax.record import Fields, Start
from eelbert_jax.reporting.text import NONE, Table, count, millions, number, tell_apart
from eelbert_jax.training.writer import duration, has_metrics, read_metrics
from eelbert_jax.workdir import CONFIG_NAME, METRICS_NAME, read_json


class HeldOut(NamedTuple):
    """Hold held-out figures after `step` updates; the loss in nats a target."""

    step: int
    loss: float
    accuracy: float
    perplexity: float


@dataclasses.dataclass(frozen=True)
class PretrainingRun:
    """Hold a run of `eelbert pretrain`, finished or not, or of a distillation that learned beside one.

    `parameters` go by convention, empty for a kind of model that this version does not know; `eval_rows` is
    None for all held-out rows; `speeds` are (step, tokens/s since the step before).
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
        """Return the tokens read in `step` updates, None where the row length is not known."""
        return None if self.row_length is None else step * self.batch_size * self.row_length

    @property
    def seconds(self) -> float | None:
        """Training time without evaluations and saving; None where the row length is not known."""
        if self.row_length is None:
            return None
        seconds, start = 0.0, 0
        for end, speed in self.speeds:
            seconds += (end - start) * self.batch_size * self.row_length / speed
            start = end
        return seconds


def read_checkpoint(workdir: str, step: int | None) -> Start:
    """Return what a pre-training run's record, if there is one, says of its checkpoint at `step`."""
    path = store.folder(workdir)
    has_record = (path / CONFIG_NAME).is_file() and has_metrics(path)
    config = read_json(path / CONFIG_NAME) if has_record else {}
    if step is None or not is_pretraining(config):
        return Start(workdir, step)
    run = read_pretraining(path, config, workdir)
    losses = {point.step: point.loss for point in run.curve}
    return Start(workdir, step, run.tokens_at(step), losses.get(step))


def is_pretraining(config: Mapping[str, Any]) -> bool:
    """Whether `eelbert pretrain` wrote a config."""
    return "mlm_probability" in config and "run" in config


def read_pretraining(path: Path, config: Mapping[str, Any], folder: str) -> PretrainingRun:
    """Read a pre-training run; only the last line of its metrics may be torn."""
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
        name=model_name(size or "other size", embedding, model.get("hash_width")),
        changes=(*hash_changes(model["hash"]), *(f"distilled from {name}" for name in teachers(config))),
        size=size,
        embedding=embedding,
        parameters=parameters_of(model),
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


def teachers(config: Mapping[str, Any]) -> list[str]:
    """Return the name of the model that a pre-training learned from beside its rows, [] without one."""
    model = config.get("teacher", {}).get("model")
    return [] if model is None else [Path(model).name]


def hash_changes(spec: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what of a hash function is not the default, as "bucket_size=256"."""
    usual = HashSpec().to_dict()
    return tuple(
        f"{name}={value}" for name, value in (spec or {}).items() if name not in usual or usual[name] != value
    )


def parameters_of(model: Mapping[str, Any]) -> dict[str, int]:
    """Count a recorded model's parameters; empty for a kind of model that this version does not know."""
    if not set(model) <= {field.name for field in dataclasses.fields(BertConfig)}:
        return {}
    return count_parameters(BertConfig(**{**model, "hash": HashSpec()}))


def _row_length(run: Fields, rows: Path) -> int | None:
    """Return the tokens of a row: from the record, else from the prepared rows where they are here."""
    if "row_length" in run:
        return run.take("row_length", int)
    return read_manifest(rows)["row_length"] if rows.is_dir() else None


def _read_curves(path: Path) -> tuple[tuple[HeldOut, ...], tuple[tuple[int, float], ...]]:
    records = read_metrics(path)
    in_parts = not path.is_file()
    if not in_parts and len(records) < len(path.read_text(encoding="utf-8").splitlines()) - 1:
        raise UserError(
            f"{path}, line {len(records) + 1} is no JSON object, and more lines follow. Restore the file, or "
            "move the folder away."
        )
    held_out, speeds = [], []
    for place, record in enumerate(records, 1):
        fields = Fields(path, record, f"line {place}: ")
        step = fields.take("step", int)
        if "heldout_loss" in record:
            names = ("heldout_loss", "heldout_accuracy", "heldout_perplexity")
            held_out.append(HeldOut(step, *(float(fields.take(name, float)) for name in names)))
        if "tokens_per_second" in record:
            speeds.append((step, float(fields.take("tokens_per_second", float))))
    return tuple(held_out), tuple(speeds)


Evaluated = tuple[str, int | None]
"""Folder of held-out rows, and how many were evaluated; None: all."""


class Unigram(NamedTuple):
    """Hold what token frequencies alone predict of the held-out rows; the entropy in nats a token."""

    entropy: float
    accuracy: float


def unigrams(runs: Sequence[PretrainingRun]) -> dict[Evaluated, Unigram]:
    """Return the baseline of every set of held-out rows that is on this machine."""
    found = {}
    for directory, eval_rows in dict.fromkeys(evaluated(run) for run in runs):
        if Path(directory).is_dir():
            rows = Rows.open(directory, "heldout")
            ids = rows[np.arange(min(len(rows), eval_rows or len(rows)))]
            special = rows.vocabulary.special_ids
            found[directory, eval_rows] = Unigram(
                unigram_entropy(ids, special), unigram_accuracy(ids, special)
            )
    return found


def evaluated(run: PretrainingRun) -> Evaluated:
    """Return which held-out rows a run was evaluated on."""
    return run.rows, run.eval_rows


def labels(runs: Sequence[PretrainingRun]) -> list[str]:
    """Return what to call each run: its model, and its folder where several are of one kind."""
    return tell_apart([(run.label, f"{run.label} ({run.folder})") for run in runs])


def pretraining(runs: Sequence[PretrainingRun], baselines: Mapping[Evaluated, Unigram]) -> Table:
    """Return the table of runs, the baselines first."""
    named = zip(baseline_names(baselines), baselines.values(), strict=True)
    rows = [_baseline_row(name, baseline) for name, baseline in named]
    rows += [_row(run, label) for run, label in zip(runs, labels(runs), strict=True)]
    columns = (
        *("model", "parameters (MLM)", "parameters (2-class)", "tokens", "steps", "held-out loss"),
        *("accuracy", "perplexity", "tokens/s", "hardware", "time", "recipe", "commit"),
    )
    notes = [
        "Losses in nats a target. Steps, tokens and figures are those of the last evaluation; tokens/s is "
        "the median of the log's lines, time is that of training alone. Parameters (MLM): without pooler, "
        "decoder only where tied.",
    ]
    if len({evaluated(run) for run in runs}) > 1:
        notes.append("**Held-out rows differ between runs: compare losses of runs on the same rows only.**")
    absent = [label for run, label in zip(runs, labels(runs), strict=True) if evaluated(run) not in baselines]
    if absent:
        notes.append(
            f"**No unigram baseline**, the prepared rows are not on this machine: {', '.join(absent)}."
        )
    return Table("Held-out figures", columns, tuple(rows), tuple(notes))


def baseline_names(baselines: Mapping[Evaluated, Unigram]) -> list[str]:
    """Return a name for each set of held-out rows: its folder, with as much more as tells it apart."""
    choices = []
    for directory, eval_rows in baselines:
        parts, rows = Path(directory).parts, "all" if eval_rows is None else eval_rows
        ends = [str(Path(*parts[-length:])) for length in range(1, len(parts) + 1)]
        choices.append([ends[0], *(f"{end}, {rows} rows" for end in ends)])
    return tell_apart(choices)


def _baseline_row(name: str, baseline: Unigram) -> tuple[str, ...]:
    figures = (number(baseline.entropy), number(baseline.accuracy), number(math.exp(baseline.entropy), 1))
    return (f"unigram: frequencies alone ({name})", *[NONE] * 4, *figures, *[NONE] * 5)


def _row(run: PretrainingRun, label: str) -> tuple[str, ...]:
    last = run.curve[-1] if run.curve else None
    step = None if last is None else last.step
    done = f"{count(step)} of {run.total_steps:,}" + ("" if step == run.total_steps else " (unfinished)")
    return (
        label,
        *(count(run.parameters.get(convention)) for convention in ("MLM", "2-class")),
        millions(None if step is None else run.tokens_at(step)),
        done,
        number(last and last.loss),
        number(last and last.accuracy),
        number(last and last.perplexity, 1),
        count(speed(run)),
        hardware(run),
        NONE if run.seconds is None else duration(run.seconds),
        f"{run.recipe}; batch {run.batch_size}, rate {run.learning_rate:g}, seed {run.seed}",
        NONE if run.commit is None else run.commit[:12],
    )


def speed(run: PretrainingRun) -> int | None:
    """Return the median tokens/s of the log."""
    return round(statistics.median(value for _, value in run.speeds)) if run.speeds else None


def hardware(run: PretrainingRun) -> str:
    """Return the devices, as "8 x NAME"."""
    counts = Counter(run.devices)
    return ", ".join(name if number == 1 else f"{number} x {name}" for name, number in counts.items())


def records(
    runs: Sequence[PretrainingRun], baselines: Mapping[Evaluated, Unigram]
) -> list[dict[str, object]]:
    """Return one record a run and evaluation, with what each run is."""
    return [
        {
            "model": label,
            "folder": run.folder,
            "parameters_mlm": run.parameters.get("MLM"),
            "parameters_2_class": run.parameters.get("2-class"),
            "step": point.step,
            "total_steps": run.total_steps,
            "tokens": run.tokens_at(point.step),
            "heldout_loss": point.loss,
            "heldout_accuracy": point.accuracy,
            "heldout_perplexity": point.perplexity,
            "unigram_entropy": baselines[evaluated(run)].entropy if evaluated(run) in baselines else None,
            "unigram_accuracy": baselines[evaluated(run)].accuracy if evaluated(run) in baselines else None,
            "tokens_per_second": speed(run),
            "seconds": run.seconds,
            "hardware": hardware(run),
            "recipe": run.recipe,
            "batch_size": run.batch_size,
            "learning_rate": run.learning_rate,
            "seed": run.seed,
            "commit": run.commit,
        }
        for run, label in zip(runs, labels(runs), strict=True)
        for point in run.curve
    ]
