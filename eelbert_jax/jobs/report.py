"""`eelbert report`: folders of runs in, the papers' tables with ours beside them out.

Imports no JAX, so that it takes no memory of an accelerator that is training.
"""

from collections.abc import Sequence
from pathlib import Path

from eelbert_jax import cli
from eelbert_jax.errors import UserError
from eelbert_jax.reporting import claims, dropping, plots, pretraining, published, tables
from eelbert_jax.reporting.runs import Found, find_runs
from eelbert_jax.reporting.scores import Scores, collect
from eelbert_jax.reporting.text import Table, csv_text, markdown
from eelbert_jax.workdir import REPORT_NAME, make_writable, write_whole


def report(runs: str, workdir: str | Path, benchmarks: str = "") -> Path:
    """Write `report.md`, pictures and CSV, and return the path of `report.md`.

    `runs` (folders or patterns) and `benchmarks` (files of JSON lines) are separated by commas.
    """
    found = find_runs(runs)
    lines = claims.read_benchmarks(benchmarks)
    glue, own = (
        collect(
            [run for run in found.finetuning if run.is_own == is_own and run.result.dropped is None],
            found.pretraining,
        )
        for is_own in (False, True)
    )
    folder = Path(workdir)
    make_writable(folder)
    records = tables.score_records(glue) + tables.score_records(own)
    if records:
        write_whole(folder / "finetuning.csv", csv_text(records))
    parts = [_head(found), *_pretraining(found, folder), *_glue(glue, own, folder), *_own(own, folder)]
    ablations = _markdown(claims.ablations(glue, found.pretraining))
    parts += ["## Ablations", "", *(ablations or ["No runs of one size that differ in their embedding.", ""])]
    parts += _dropping(found, folder)
    parts += ["## Cost", "", *_markdown(claims.costs(lines))]
    write_whole(folder / REPORT_NAME, "\n".join(parts))
    return folder / REPORT_NAME


def _head(found: Found) -> str:
    lines = [
        "# Report",
        "",
        f"Of {len(found.pretraining)} pre-training and {len(found.finetuning)} finished fine-tuning runs. "
        "Reported: EELBERT (arXiv 2310.20144). Marks of reported figures:",
        "",
        *(f"- [{mark}] {meaning}" for mark, meaning in published.MARKS.items()),
        "",
    ]
    if found.unfinished:
        lines += [f"**Unfinished, not scored**: {', '.join(found.unfinished)}.", ""]
    return "\n".join(lines)


def _pretraining(found: Found, folder: Path) -> list[str]:
    parts, runs = ["## Pre-training", ""], found.pretraining
    if not runs:
        return [*parts, "No pre-training run.", ""]
    baselines = pretraining.unigrams(runs)
    records = pretraining.records(runs, baselines)
    if records:
        plots.plot_curves(runs, baselines, folder / "pretraining.png")
        write_whole(folder / "pretraining.csv", csv_text(records))
        parts += ["![Held-out loss and accuracy](pretraining.png)", ""]
    return [*parts, markdown(pretraining.pretraining(runs, baselines))]


def _glue(scores: Scores, own: Scores, folder: Path) -> list[str]:
    parts = ["## Fine-tuning on GLUE", ""]
    if not scores.everyone:
        return [] if own.everyone else [*parts, "No finished fine-tuning run.", ""]
    if plots.plot_scores(scores, folder / "finetuning.png"):
        parts += ["![Scores](finetuning.png)", ""]
    if any(experiment.official for model in scores.everyone for experiment in model.chosen.values()):
        write_whole(folder / "averages.csv", csv_text(tables.average_records(scores)))
        parts += _markdown(_comparisons(scores))
    unofficial = tables.unofficial(scores)
    ratios, shares = claims.ratios(scores)
    if shares:
        write_whole(folder / "ratios.csv", csv_text(claims.ratio_records(shares)))
    return parts + _markdown([*([unofficial] if unofficial.rows else []), ratios, *_how(scores)])


def _comparisons(scores: Scores) -> list[Table]:
    """Return the paper's tables 1 and 2, of what was measured on official splits."""
    found = [] if scores.models else [tables.comparison("Baselines", (), (), scores)]
    shown = [model for model in scores.models if not claims.is_variant(model)]
    for title, reported, is_base in (
        ("Table 1: base models", published.TABLE_1_MODELS, True),
        ("Table 2: small models", published.TABLE_2_MODELS, False),
    ):
        models = [model for model in shown if (model.size == "base") == is_base]
        if models:
            found.append(tables.comparison(title, reported, models, scores))
        else:
            found.append(Table(title, (), (), (f"**No run here of {', '.join(reported)}.**",)))
    return found


def _own(scores: Scores, folder: Path) -> list[str]:
    if not scores.everyone:
        return []
    plots.plot_own_tasks(scores, folder / "own_tasks.png")
    parts = ["## Fine-tuning on your own tasks", "", "![Scores](own_tasks.png)", ""]
    ratios, shares = claims.ratios(scores)
    return parts + _markdown([*tables.own_tasks(scores), *([ratios] if shares else []), *_how(scores)])


def _dropping(found: Found, folder: Path) -> list[str]:
    models = dropping.smaller_models(found.finetuning)
    if not models:
        return []
    plots.plot_dropping(models, folder / "dropping.png")
    write_whole(folder / "dropping.csv", csv_text(dropping.records(models)))
    parts = ["## Dropped layers", "", "![Scores by layers dropped](dropping.png)", ""]
    return parts + _markdown(list(dropping.tables(models)))


def _how(scores: Scores) -> tuple[Table, Table]:
    everyone = (*scores.models, *scores.baselines)
    return tables.starting_points(everyone), tables.recipes(everyone)


def _markdown(found: Sequence[Table]) -> list[str]:
    return [markdown(table) for table in found]


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("report", argv)
    runs, benchmarks = (str(invocation.flags[name]) for name in ("runs", "benchmarks"))
    if not runs:
        raise UserError("report needs the folders of the runs: add --runs=DIR,DIR or a pattern.")
    print(report(runs, invocation.workdir, benchmarks))
