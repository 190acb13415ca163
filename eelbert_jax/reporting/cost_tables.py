"""What a model costs: bytes, milliseconds (table 5), and the lines that benchmarks print."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eelbert_jax.errors import UserError
from eelbert_jax.model.config import SIZES
from eelbert_jax.record import Fields
from eelbert_jax.reporting import published
from eelbert_jax.reporting.naming import model_name, parameter_counts, published_identity
from eelbert_jax.reporting.text import NONE, Table, count

BYTES_PER_FLOAT32 = 4
LATENCY_BENCHMARK = "embedding"


def read_benchmarks(files: str) -> list[dict[str, Any]]:
    """Read the JSON lines that benchmarks print.

    Args:
      files: paths, separated by commas; "" is none.

    Raises:
      UserError: a file is not there, or a line is not a benchmark's.
    """
    lines = []
    for word in filter(None, (word.strip() for word in files.split(","))):
        path = Path(os.path.expanduser(word))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Cannot read the benchmark lines {word!r}: {error}.") from error
        for place, line in enumerate(text.splitlines(), 1):
            if line.strip():
                lines.append(_read_line(path, place, line))
    return lines


def _read_line(path: Path, place: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise UserError(f"{path}, line {place}: no JSON ({error}); give what a benchmark printed.") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}, line {place}: no JSON object; give what a benchmark printed.")
    fields = Fields(path, values, f"line {place}: ")
    texts = {name: fields.take(name, str) for name in ("benchmark", "case", "unit")}
    return texts | {name: fields.take(name, float) for name in ("ours", "baseline", "ratio")}


def memory() -> Table:
    """Return the bytes of every model of the paper, counted here beside reported."""
    rows = []
    for size in SIZES:
        for embedding in ("table", "ngram_hash"):
            name = model_name(size, embedding)
            if name in published.MEGABYTES:
                counts = parameter_counts(published_identity(size, embedding))
                megabytes = [f"{BYTES_PER_FLOAT32 * counts[name] / 1e6:.2f}" for name in ("MLM", "2-class")]
                reported = published.MEGABYTES[name]
                rows.append((name, count(counts["MLM"]), *megabytes, f"{reported.value:g} [{reported.mark}]"))
    columns = ("model", "parameters (MLM)", "MB (MLM)", "MB (2-class)", "MB reported")
    notes = ("MB: 10^6 bytes of float32. MLM: without pooler, decoder only where tied. V = 30,522.",)
    return Table("Table 5: memory", columns, tuple(rows), notes)


def latency(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Return the latency benchmark's lines beside the paper's figures."""
    rows = _rows(line for line in lines if line["benchmark"] == LATENCY_BENCHMARK)
    for size, (table, hashed) in published.LATENCY_MS.items():
        rows.append(
            (
                f"{size}, as the paper reports it: hash against table",
                f"{hashed.value:g} [{hashed.mark}]",
                f"{table.value:g} [{table.mark}]",
                "ms",
                NONE,
            )
        )
    notes = [f"The paper: {text} [{mark}]" for text, mark in published.CLAIMS["latency"]]
    if not any(line["benchmark"] == LATENCY_BENCHMARK for line in lines):
        notes.insert(0, f"**Missing**: no line of benchmarks/{LATENCY_BENCHMARK}.py given (--benchmarks).")
    columns = ("case", "ours", "baseline", "unit", "ours / baseline")
    return Table("Table 5: latency", columns, tuple(rows), tuple(notes))


def other_benchmarks(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Return the lines of all other benchmarks."""
    rows = _rows((line for line in lines if line["benchmark"] != LATENCY_BENCHMARK), with_name=True)
    return Table("Benchmarks", ("case", "ours", "baseline", "unit", "ours / baseline"), tuple(rows))


def _rows(lines: Any, with_name: bool = False) -> list[tuple[str, ...]]:
    return [
        (
            f"{line['benchmark']}: {line['case']}" if with_name else line["case"],
            f"{line['ours']:,.4g}",
            f"{line['baseline']:,.4g}",
            line["unit"],
            f"{line['ratio']:.3f}",
        )
        for line in lines
    ]
