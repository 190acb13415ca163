"""The model card of an export, written from what its run recorded."""

from collections.abc import Sequence
from pathlib import Path

from eelbert_jax.datasets.tasks import TAG, TaskRecord
from eelbert_jax.model.config import BertConfig
from eelbert_jax.model.count import count_parameters
from eelbert_jax.record import Result
from eelbert_jax.reporting.pretraining import is_pretraining, read_checkpoint, teachers
from eelbert_jax.training.writer import has_metrics
from eelbert_jax.workdir import CONFIG_NAME, RESULT_NAME, read_json

_FRONT = "---\nlibrary_name: eelbert_jax\ntags: [bert, eelbert, n-gram-hashing]\n---\n"


def model_card(
    source: Path, step: int | None, config: BertConfig, task: TaskRecord | None, notes: Sequence[str]
) -> str:
    """Return an export's README.md; `notes` are what its check found, `step` is None of imported models."""
    result = Result.read(source / RESULT_NAME) if (source / RESULT_NAME).is_file() else None
    sections = {
        f"# {source.name}": _model(config),
        "## Trained on": _training(source, step, task, result),
        "## Scores": _scores(result),
        "## Not good for": _limits(task, bool(_teacher(source, step))),
        "## Files": [*(f"- {note}" for note in notes), "", "SHA-256 of every file: `checksums.json`."],
    }
    return _FRONT + "\n".join("\n".join(["", title, "", *lines]) for title, lines in sections.items()) + "\n"


def _model(config: BertConfig) -> list[str]:
    count = count_parameters(config)["2-class"]
    lines = [
        f"A BERT of {config.num_hidden_layers} layers, width {config.hidden_size}, with {count:,} parameters "
        "(as a classifier).",
    ]
    if config.embedding in ("ngram_hash", "random_hash"):
        lines.append(
            f"It has no table of token embeddings: the hash {config.hash.fingerprint} (`{config.embedding}`, "
            f"seed {config.hash.seed}) computes them. Source: EELBERT, arXiv:2310.20144."
        )
    return lines


def _training(source: Path, step: int | None, task: TaskRecord | None, result: Result | None) -> list[str]:
    start, lines = result.pretrained if result else None, _teacher(source, step)
    if result is None and not lines and has_metrics(source) and step is not None:
        start = read_checkpoint(str(source), step)
    if result is not None:
        lines.append(
            f"- {result.task}: {result.num_examples['train']:,} examples, {result.num_epochs:g} epochs of "
            f"batch {result.batch_size} at {result.learning_rate:g}, seed {result.seed}; {result.selection}."
        )
    elif task is not None:
        lines.append(f"- {task.name}.")
    if start is not None and start.tokens is None:
        lines.append(f"- before that: {start.workdir}.")
    elif start is not None:
        loss = "" if start.heldout_loss is None else f", held-out loss {start.heldout_loss:.3f} nats"
        lines.append(
            f"- before that {start.tokens:,} tokens as a masked language model{loss} ({start.workdir})."
        )
    return lines or ["What it was trained on is not recorded."]


def _teacher(source: Path, step: int | None) -> list[str]:
    """Return what the run of a distillation learned of whom; nothing of other runs and of folders."""
    path = source / CONFIG_NAME
    config = read_json(path) if path.is_file() else {}
    if is_pretraining(config):
        tokens = read_checkpoint(str(source), step).tokens or 0
        return [f"- {name}'s states and masked words of {tokens:,} tokens." for name in teachers(config)]
    vectors = config.get("vectors")
    if vectors is None:
        return []
    return [f"- {vectors['teacher']['name']}'s vectors of {vectors['num_sentences']:,} sentences."]


def _scores(result: Result | None) -> list[str]:
    if result is None:
        return ["None: it was not fine-tuned here."]
    found = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    always = ", ".join(f"{name} {value:.4f}" for name, value in result.majority.items())
    return [
        f"On {result.num_examples[result.split]:,} examples of {result.task} {result.split}, which chose the "
        f"step: {found} (seed {result.seed}; the most frequent label alone: {always}).",
    ]


def _limits(task: TaskRecord | None, has_teacher: bool) -> list[str]:
    lines = ["- Texts in languages, or of a kind, that it was not trained on."]
    if has_teacher:
        lines.append("- What its teacher gets wrong: it learned that too, and the teacher's biases.")
    if task is not None:
        unit = "tags" if task.kind == TAG else "answers"
        lines += [
            f"- Anything but {task.name}: its {unit} have no other meaning.",
            f"- Texts of more than {task.max_length} tokens: what is beyond is not read.",
        ]
    return [*lines, "- Decisions about people: nobody has measured what biases it has."]
