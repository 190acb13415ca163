"""What the paper claims, measured: share of BERT's score, ablations (tables 3 and 4), cost (table 5)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eelbert_jax import store
from eelbert_jax.errors import UserError
from eelbert_jax.model.config import SIZES, model_name, sized
from eelbert_jax.model.count import count_parameters
from eelbert_jax.record import Fields
from eelbert_jax.reporting import published
from eelbert_jax.reporting.pretraining import PretrainingRun
from eelbert_jax.reporting.published import AVERAGES, MEASURES, SCORE_METRICS, Figure
from eelbert_jax.reporting.runs import split_paths
from eelbert_jax.reporting.scores import Model, Scores, average
from eelbert_jax.reporting.tables import (
    FLAGS,
    NO_SIGNAL,
    figure,
    measured,
    task_list,
    unofficial_measures,
)
from eelbert_jax.reporting.text import NONE, Table, count, millions, number

COMMON = "Mean of the tasks that both have"
BYTES_PER_FLOAT32 = 4
LATENCY_BENCHMARK = "embedding"
BENCHMARK = ("case", "ours", "baseline", "unit", "ours / baseline")


def _claims(part: str) -> list[str]:
    return [f"The paper: {text} [{mark}]" for text, mark in published.CLAIMS[part]]


# Share of BERT's score


class Ratio(NamedTuple):
    """Hold a ratio of medians; it has signal where both scores are above the majority class."""

    pair: str
    line: str
    measured: float | None
    has_signal: bool = True
    reported: Figure | None = None
    reported_has_signal: bool = True


def ratios(scores: Scores) -> tuple[Table, list[Ratio]]:
    """Return the table of shares, its lines down and the pairs across, and the figures in it."""
    compared, notes = _pairs(scores.models)
    by_pair = [lines for pair in compared if (lines := _ratios_of(*pair, scores))]
    rows = []
    for line in dict.fromkeys(ratio.line for of_pair in by_pair for ratio in of_pair):
        cells = [line]
        for of_pair in by_pair:
            cells += _ratio_cells([ratio for ratio in of_pair if ratio.line == line])
        rows.append(tuple(cells))
    columns = [""]
    for of_pair in by_pair:
        columns += [f"{of_pair[0].pair}, measured here", "reported"]
    if not rows:
        notes.append("No pair of an EELBERT and its BERT was measured on a common task.")
    notes += [
        "Ratios of medians over seeds, of models with equal pre-training. A ratio of reported figures has "
        f"the weaker of their marks. {NO_SIGNAL}: one of the two is not above the majority class, so that a "
        "ratio near 1 says nothing.",
        *_claims("ratios"),
    ]
    table = Table("Share of BERT's score", tuple(columns), tuple(rows), tuple(notes))
    return table, [ratio for of_pair in by_pair for ratio in of_pair]


def _pairs(models: Sequence[Model]) -> tuple[list[tuple[Model, Model]], list[str]]:
    """Return what is compared, and notes on what is not: a share is fair only of equal pre-training."""
    found, notes = [], []
    for small, large in published.RATIO_PAIRS:
        smalls = [model for model in models if model.name == small]
        larges = [model for model in models if model.name == large]
        equal = [(a, b) for a in smalls for b in larges if _tokens(a) == _tokens(b)]
        found += equal
        if smalls and larges and not equal:
            budgets = f"{small} {_budgets(smalls)}, {large} {_budgets(larges)}"
            notes.append(f"**Not compared**, pre-trained on unequal numbers of tokens: {budgets}.")
    return found, notes


def _tokens(model: Model) -> int | None:
    return None if model.start is None else model.start.tokens


def _budgets(models: Sequence[Model]) -> str:
    return " and ".join(millions(_tokens(model)) for model in models)


def _ratios_of(small: Model, large: Model, scores: Scores) -> list[Ratio]:
    pair, both = f"{small.label} / {large.label}", (small.name, large.name)
    lines = [(label, task, metric) for task, metric, label in MEASURES]
    lines += [
        (f"{task}, {metric} (unofficial)", task, metric) for task, metric in unofficial_measures(scores)
    ]
    found = []
    for label, task, metric in lines:
        medians = small.median(task, metric), large.median(task, metric)
        if None in medians:
            continue
        majority = scores.majority_of(task, metric)
        found.append(
            Ratio(
                pair,
                label,
                _divide(*medians),
                majority is None or all(median is not None and median > majority for median in medians),
                _quotient(*(published.score(name, task, metric) for name in both)),
                all(published.has_signal(name, task, metric) for name in both),
            )
        )
    for name, tasks in AVERAGES.items():
        means = average(small.median, tasks), average(large.median, tasks)
        if not any(mean.missing for mean in means):
            reported = _quotient(*(published.average_score(model, name) for model in both))
            found.append(Ratio(pair, name, _divide(*(mean.value for mean in means)), reported=reported))
    common = [task for task in SCORE_METRICS if task in small.chosen and task in large.chosen]
    if common:
        share = _divide(*(average(model.median, common).value for model in (small, large)))
        found.append(Ratio(pair, f"{COMMON}: {task_list(common)}", share))
    return found


def _divide(small: float | None, large: float | None) -> float | None:
    return None if small is None or large is None or large <= 0 else small / large


def _quotient(small: Figure | None, large: Figure | None) -> Figure | None:
    if small is None or large is None:
        return None
    return Figure(small.value / large.value, published.weakest([small.mark, large.mark]))


def _ratio_cells(found: Sequence[Ratio]) -> list[str]:
    if not found:
        return [NONE, NONE]
    (ratio,) = found
    flags = ["" if has_signal else NO_SIGNAL for has_signal in (ratio.has_signal, ratio.reported_has_signal)]
    return [number(ratio.measured) + flags[0], figure(ratio.reported) + flags[1]]


def ratio_records(lines: Sequence[Ratio]) -> list[dict[str, object]]:
    """Return the ratios as records."""
    return [
        {
            **{name: getattr(ratio, name) for name in ("pair", "line", "measured", "has_signal")},
            "reported": ratio.reported and ratio.reported.value,
            "mark": ratio.reported and ratio.reported.mark,
        }
        for ratio in lines
    ]


# Ablations


class Ablation(NamedTuple):
    """Hold a question: the embedders it is about, the one it asks about, the one to measure from."""

    table: str
    claim: str
    embeddings: tuple[str, ...]
    asked: str
    reference: str


ABLATIONS = (
    Ablation(
        "Table 3", "hash function", ("table", "ngram_hash", "random_hash"), "random_hash", "random_hash"
    ),
    Ablation("Table 4", "hash initialization", ("table", "hash_initialized"), "hash_initialized", "table"),
)


class Variant(NamedTuple):
    """Hold a column: a pre-trained model, and its fine-tuned one where there is one."""

    label: str
    embedding: str
    is_changed: bool
    tokens: int | None
    heldout_loss: float | None
    model: Model | None


def is_variant(model: Model) -> bool:
    """Whether a model is one of an ablation alone, and so no column of tables 1 and 2."""
    asked = {ablation.asked for ablation in ABLATIONS}
    return model.start is not None and (model.name is None or model.embedding in asked)


def ablations(scores: Scores, pretraining: Sequence[PretrainingRun]) -> list[Table]:
    """Return the tables of those ablations that the runs answer, one a size."""
    tables = []
    for ablation in ABLATIONS:
        for size in SIZES:
            columns = _variants(size, ablation, scores.models, pretraining)
            if any(column.embedding == ablation.asked or column.is_changed for column in columns):
                tables.append(_ablation(size, ablation, columns, scores))
    return tables


def _variants(
    size: str, ablation: Ablation, models: Sequence[Model], pretraining: Sequence[PretrainingRun]
) -> list[Variant]:
    found, used = [], set()
    for model in models:
        start, embedding = model.start, model.embedding
        if start is not None and embedding in ablation.embeddings and model.size == size:
            used.add(store.folder(start.workdir).resolve())
            budget = start.tokens, start.heldout_loss
            found.append(Variant(model.label, str(embedding), model.name is None, *budget, model))
    suffix = ", not fine-tuned" if found else ""
    for run in pretraining:
        if run.path not in used and run.size == size and run.embedding in ablation.embeddings and run.curve:
            last = run.curve[-1]
            budget = run.tokens_at(last.step), last.loss
            found.append(Variant(run.label + suffix, run.embedding, bool(run.changes), *budget, None))
    return sorted(found, key=lambda column: (ablation.embeddings.index(column.embedding), column.label))


def _ablation(size: str, ablation: Ablation, columns: Sequence[Variant], scores: Scores) -> Table:
    rows = [
        ("pre-trained on tokens", *(millions(column.tokens) for column in columns)),
        ("held-out loss", *(number(column.heldout_loss) for column in columns)),
    ]
    models = [column.model for column in columns if column.model is not None]
    for task, metric, label in MEASURES:
        if any(model.summary(task, metric) is not None for model in models):
            cells = [c.model and measured(c.model, task, metric, scores, NONE) for c in columns]
            rows.append((label, *(cell or NONE for cell in cells)))
    common = [task for task in SCORE_METRICS if models and all(task in model.chosen for model in models)]
    if common:
        means = [None if c.model is None else average(c.model.mean, common).value for c in columns]
        label = f"Points above {ablation.reference} of the same budget"
        gains = [_gain(column, ablation.reference, columns, common) for column in columns]
        rows.append((f"Mean of the common tasks: {task_list(common)}", *(number(mean) for mean in means)))
        rows.append((label, *gains))
    notes = [*_claims(ablation.claim), *FLAGS]
    if len({column.tokens for column in columns}) > 1:
        notes.insert(0, "**The budgets differ: compare columns of equal numbers of tokens only.**")
    title = f"{ablation.table}: {ablation.claim}, {size}"
    return Table(title, ("", *(column.label for column in columns)), tuple(rows), tuple(notes))


def _gain(column: Variant, reference: str, columns: Sequence[Variant], tasks: Sequence[str]) -> str:
    """Return by how many points the mean over `tasks` is above that of the one reference of equal budget."""
    references = [
        other.model
        for other in columns
        if other.embedding == reference and not other.is_changed and other.tokens == column.tokens
    ]
    models = [column.model, *(model for model in references if model is not None)]
    means = [None if model is None else average(model.mean, tasks).value for model in models]
    if len(means) != 2 or means[0] is None or means[1] is None:
        return NONE
    return f"{100 * (means[0] - means[1]):+.1f}"


# Cost


def read_benchmarks(files: str) -> list[dict[str, Any]]:
    """Read the JSON lines that benchmarks print; `files` are paths, separated by commas."""
    lines = []
    for path in split_paths(files, "--benchmarks"):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Cannot read the benchmark lines {path}: {error}.") from error
        numbered = enumerate(text.splitlines(), 1)
        lines += [_read_line(path, place, line) for place, line in numbered if line.strip()]
    return lines


def _read_line(path: Path, place: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}, line {place}: no JSON ({error}); give what a benchmark printed.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}, line {place}: no JSON object; give what a benchmark printed.")
    fields = Fields(path, values, f"line {place}: ")
    texts = {name: fields.take(name, str) for name in ("benchmark", "case", "unit")}
    return texts | {name: fields.take(name, float) for name in ("ours", "baseline", "ratio")}


def costs(lines: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return memory, latency and, of lines that benchmarks printed, the others."""
    others = [line for line in lines if line["benchmark"] != LATENCY_BENCHMARK]
    rows = _benchmark_rows({**line, "case": f"{line['benchmark']}: {line['case']}"} for line in others)
    return [_memory(), _latency(lines), *([Table("Benchmarks", BENCHMARK, tuple(rows))] if rows else [])]


def _memory() -> Table:
    rows = []
    for size in SIZES:
        for embedding in ("table", "ngram_hash"):
            name = model_name(size, embedding)
            if name in published.MEGABYTES:
                counts = count_parameters(sized(size, embedding=embedding))
                megabytes = [f"{BYTES_PER_FLOAT32 * counts[kind] / 1e6:.2f}" for kind in ("MLM", "2-class")]
                reported = published.MEGABYTES[name]
                rows.append((name, count(counts["MLM"]), *megabytes, f"{reported.value:g} [{reported.mark}]"))
    columns = ("model", "parameters (MLM)", "MB (MLM)", "MB (2-class)", "MB reported")
    notes = ("MB: 10^6 bytes of float32. MLM: without pooler, decoder only where tied. V = 30,522.",)
    return Table("Table 5: memory", columns, tuple(rows), notes)


def _latency(lines: Sequence[Mapping[str, Any]]) -> Table:
    rows = _benchmark_rows(line for line in lines if line["benchmark"] == LATENCY_BENCHMARK)
    notes = _claims("latency")
    if not rows:
        notes.insert(0, f"**Missing**: no line of benchmarks/{LATENCY_BENCHMARK}.py given (--benchmarks).")
    for size, pair in published.LATENCY_MS.items():
        table, hashed = (f"{value.value:g} [{value.mark}]" for value in pair)
        case = f"{size}, recollected from the paper: hash against table"
        rows.append((case, hashed, table, "ms", NONE))
    return Table("Table 5: latency", BENCHMARK, tuple(rows), tuple(notes))


def _benchmark_rows(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            line["case"],
            f"{line['ours']:,.4g}",
            f"{line['baseline']:,.4g}",
            line["unit"],
            f"{line['ratio']:.3f}",
        )
        for line in lines
    ]
