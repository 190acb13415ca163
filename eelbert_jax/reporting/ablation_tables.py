"""The ablations of a report: does the hash need morphology (table 3), is it a good initializer (table 4)?"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from eelbert_jax.model.config import SIZES
from eelbert_jax.reporting import published
from eelbert_jax.reporting.glue_tables import FLAGS, Baselines, measured, task_list
from eelbert_jax.reporting.published import MEASURES, SCORE_METRICS
from eelbert_jax.reporting.runs import PretrainingRun
from eelbert_jax.reporting.scores import Model, average
from eelbert_jax.reporting.text import NONE, Table, millions, number


class Ablation(NamedTuple):
    """A question: the embedders it is about, the one it asks about, the one to measure from."""

    title: str
    embeddings: tuple[str, ...]
    asked: str
    reference: str
    claim: str


ABLATIONS = (
    Ablation(
        "Table 3: hash function",
        ("table", "ngram_hash", "random_hash"),
        "random_hash",
        "random_hash",
        "hash function",
    ),
    Ablation(
        "Table 4: hash initialization",
        ("table", "hash_initialized"),
        "hash_initialized",
        "table",
        "hash initialization",
    ),
)


class Variant(NamedTuple):
    """A column: a pre-trained model, and its fine-tuned one where there is one."""

    label: str
    embedding: str
    is_changed: bool
    tokens: int | None
    heldout_loss: float | None
    model: Model | None


def variants(
    size: str, ablation: Ablation, models: Sequence[Model], pretraining: Sequence[PretrainingRun]
) -> list[Variant]:
    """Return the columns of an ablation at one size: fine-tuned models, and runs only pre-trained."""
    found, used = [], set()
    for model in models:
        start = model.checkpoint
        if start is not None and model.size == size and model.embedding in ablation.embeddings:
            used.add(Path(start.workdir).resolve())
            changed = model.name is None
            found.append(
                Variant(model.label, model.embedding, changed, start.tokens, start.heldout_loss, model)
            )
    suffix = ", not fine-tuned" if found else ""
    for run in pretraining:
        if run.path not in used and run.size == size and run.embedding in ablation.embeddings and run.curve:
            last, changed = run.curve[-1], bool(run.changes)
            label, tokens = run.label + suffix, run.tokens_at(last.step)
            found.append(Variant(label, run.embedding, changed, tokens, last.loss, None))
    return sorted(found, key=lambda column: (ablation.embeddings.index(column.embedding), column.label))


def is_variant(model: Model) -> bool:
    """Whether a model is one of an ablation alone, and so no column of tables 1 and 2."""
    asked = {ablation.asked for ablation in ABLATIONS}
    return model.checkpoint is not None and (model.name is None or model.embedding in asked)


def ablations(
    models: Sequence[Model], pretraining: Sequence[PretrainingRun], baselines: Baselines
) -> list[Table]:
    """Return the tables of those ablations that the runs answer, one a size."""
    tables = []
    for ablation in ABLATIONS:
        for size in SIZES:
            columns = variants(size, ablation, models, pretraining)
            if any(column.embedding == ablation.asked or column.is_changed for column in columns):
                tables.append(_table(f"{ablation.title}, {size}", ablation, columns, baselines))
    return tables


def _table(title: str, ablation: Ablation, columns: Sequence[Variant], baselines: Baselines) -> Table:
    rows = [
        ("pre-trained on tokens", *(millions(column.tokens) for column in columns)),
        ("held-out loss", *(number(column.heldout_loss) for column in columns)),
    ]
    models = [column.model for column in columns if column.model is not None]
    for task, metric, label in MEASURES:
        if any(model.summary(task, metric) is not None for model in models):
            rows.append((label, *(_cell(column.model, task, metric, baselines) for column in columns)))
    notes = [f"The paper: {text} [{mark}]" for text, mark in published.CLAIMS[ablation.claim]]
    common = [task for task in SCORE_METRICS if models and all(task in model.chosen for model in models)]
    if common:
        rows.append((f"Mean of the common tasks: {task_list(common)}", *(_mean(c, common) for c in columns)))
        rows.append(
            (
                f"Points above {ablation.reference} of the same budget",
                *(_gain(column, ablation.reference, columns, common) for column in columns),
            )
        )
    if len({column.tokens for column in columns}) > 1:
        notes.insert(0, "**The budgets differ: compare columns of equal numbers of tokens only.**")
    return Table(title, ("", *(column.label for column in columns)), tuple(rows), (*notes, *FLAGS))


def _cell(model: Model | None, task: str, metric: str, baselines: Baselines) -> str:
    return NONE if model is None else measured(model, task, metric, baselines, NONE)


def _mean(column: Variant, tasks: Sequence[str]) -> str:
    return NONE if column.model is None else number(average(column.model.mean, tasks).value)


def _gain(column: Variant, reference: str, columns: Sequence[Variant], tasks: Sequence[str]) -> str:
    """Return by how many points the mean over `tasks` is above that of the one reference of equal budget."""
    references = [
        other
        for other in columns
        if other.embedding == reference and not other.is_changed and other.tokens == column.tokens
    ]
    measured_references = [other.model for other in references if other.model is not None]
    if column.model is None or len(measured_references) != 1:
        return NONE
    ours, theirs = (average(model.mean, tasks).value for model in (column.model, *measured_references))
    return NONE if ours is None or theirs is None else f"{100 * (ours - theirs):+.1f}"
