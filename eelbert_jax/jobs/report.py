"""`eelbert report`: folders of runs in, the papers' tables with ours beside them out.

Reads what runs left and trains nothing. Imports no JAX, so that it can look at a training that is under way
without taking memory of its accelerator. What the sections say is in `eelbert_jax.reporting`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eelbert_jax import cli
from eelbert_jax.errors import UserError
from eelbert_jax.reporting import (
    ablation_tables,
    cost_tables,
    glue_tables,
    plots,
    pretraining_tables,
    published,
    ratio_tables,
)
from eelbert_jax.reporting.runs import Found, find_runs
from eelbert_jax.reporting.scores import Model, collect
from eelbert_jax.reporting.text import Table, csv_text, markdown
from eelbert_jax.workdir import REPORT_NAME


class Output:
    """The folder that receives the report's files."""

    def __init__(self, workdir: str | Path) -> None:
        self.folder = Path(workdir)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, name: str, text: str) -> None:
        """Write a file.

        Raises:
          UserError: the folder cannot be written.
        """
        try:
            (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"Cannot write to the workdir {str(self.folder)!r}: {error.strerror or error}. Give a folder "
            "that you may write to: --workdir=DIR."
        )


def report(runs: str, workdir: str | Path, benchmarks: str = "") -> Path:
    """Write `report.md`, its pictures and its figures as CSV.

    Args:
      runs: folders that hold runs at any depth, or patterns, separated by commas.
      workdir: receives the files.
      benchmarks: files of JSON lines that benchmarks printed, separated by commas.

    Returns:
      The path of `report.md`.

    Raises:
      UserError: nothing to report, a file that cannot be understood, or figures that do not belong together.
    """
    found = find_runs(runs)
    lines = cost_tables.read_benchmarks(benchmarks)
    models = collect(found.finetuning, found.pretraining)
    output = Output(workdir)
    parts = [
        _head(found),
        *_pretraining(found, output),
        *_finetuning(models, output),
        *_ablations(found, models),
        *_costs(lines),
    ]
    output.write(REPORT_NAME, "\n".join(parts))
    return output.folder / REPORT_NAME


def _head(found: Found) -> str:
    """Say what the report is of, and what the marks mean."""
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


def _pretraining(found: Found, output: Output) -> list[str]:
    parts = ["## Pre-training", ""]
    runs = found.pretraining
    if not runs:
        return [*parts, "No pre-training run.", ""]
    baselines = pretraining_tables.unigrams(runs)
    records = pretraining_tables.records(runs, baselines)
    if records:
        plots.plot_curves(runs, baselines, output.folder / "pretraining.png")
        output.write("pretraining.csv", csv_text(records))
        parts += ["![Held-out loss and accuracy](pretraining.png)", ""]
    return [*parts, markdown(pretraining_tables.pretraining(runs, baselines))]


def _finetuning(models: Sequence[Model], output: Output) -> list[str]:
    parts = ["## Fine-tuning on GLUE", ""]
    berts, baselines = glue_tables.split_baselines(models)
    if not berts and not baselines.models:
        return [*parts, "No finished fine-tuning run.", ""]
    output.write("finetuning.csv", csv_text(glue_tables.score_records(berts, baselines)))
    output.write("averages.csv", csv_text(glue_tables.average_records(berts, baselines)))
    plots.plot_scores(berts, baselines, output.folder / "finetuning.png")
    parts += ["![Scores](finetuning.png)", ""]
    if not berts:
        parts.append(markdown(glue_tables.comparison("Baselines", (), (), baselines)))
    shown = [model for model in berts if not ablation_tables.is_variant(model)]
    base = [model for model in shown if model.size == "base"]
    small = [model for model in shown if model.size != "base"]
    for title, reported, ours in (
        ("Table 1: base models", published.TABLE_1_MODELS, base),
        ("Table 2: small models", published.TABLE_2_MODELS, small),
    ):
        if ours:
            parts.append(markdown(glue_tables.comparison(title, reported, ours, baselines)))
        else:
            parts.append(markdown(Table(title, (), (), (f"**No run here of {', '.join(reported)}.**",))))
    unofficial = glue_tables.unofficial(berts, baselines)
    ratios, shares = ratio_tables.ratios(berts, baselines)
    if shares:
        output.write("ratios.csv", csv_text(ratio_tables.ratio_records(shares)))
    parts += [markdown(unofficial)] if unofficial.rows else []
    everyone = (*berts, *baselines.models)
    tables = (ratios, glue_tables.starting_points(everyone), glue_tables.recipes(everyone))
    return parts + [markdown(table) for table in tables]


def _ablations(found: Found, models: Sequence[Model]) -> list[str]:
    berts, baselines = glue_tables.split_baselines(models)
    tables = ablation_tables.ablations(berts, found.pretraining, baselines)
    parts = ["## Ablations", ""]
    if not tables:
        return [*parts, "No runs of one size that differ in their embedding.", ""]
    return parts + [markdown(table) for table in tables]


def _costs(lines: Sequence[dict[str, Any]]) -> list[str]:
    tables = [cost_tables.memory(), cost_tables.latency(lines)]
    others = cost_tables.other_benchmarks(lines)
    return ["## Cost", "", *(markdown(table) for table in (*tables, *([others] if others.rows else [])))]


def main(argv: list[str]) -> None:
    """Run the job from the command line."""
    invocation = cli.parse("report", argv)
    runs, benchmarks = (str(invocation.flags[name]) for name in ("runs", "benchmarks"))
    if not runs:
        raise UserError("report needs the folders of the runs: add --runs=DIR,DIR or a pattern.")
    print(report(runs, invocation.workdir, benchmarks))
