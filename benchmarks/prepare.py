"""How fast does text become rows, and in how much memory, against a plain loop over `tokenizers`?

    python benchmarks/prepare.py [--source=GLOB] [--vocabulary=FILE] [--quick] [--json]

Each turn is a whole process from its start to the last byte written: xz files in, rows of 128 ids out. Both
sides must write the same rows; they are compared byte by byte.

    prepare            our job, a process a core
    prepare, 1 core    our job in one process
    loop               what one writes by hand: read lines, encode a batch on all cores, cut rows, write
    loop, 1 core       the same with the tokenizer's threads switched off

Without --source the text is four files of $EELBERT_DATA/corpus, or where that is not set the documentation
installed on this machine. MB are 10**6 bytes of text before compression; memory is that of all processes of a
case together, pages that they share counted once (Linux only).
"""

import argparse
import functools
import glob
import itertools
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import _measure

ROW_LENGTH = 128
LINES_AT_ONCE = 1000
POLL_SECONDS = 0.05
OURS, BASELINES = ("prepare", "prepare, 1 core"), ("loop", "loop, 1 core")


def plain_loop(source: str, vocabulary_file: str, output: Path) -> None:
    """Prepare rows as one writes it by hand, with the fastest call that `tokenizers` has: the baseline."""
    from eelbert_jax.vocabulary import load_vocabulary, make_tokenizer

    vocabulary = load_vocabulary(vocabulary_file)
    tokenizer = make_tokenizer(vocabulary)
    width = ROW_LENGTH - 2
    output.mkdir()
    with open(output / "rows.bin", "wb") as file:
        for path in sorted(glob.glob(source)):
            stream: list[int] = []
            with lzma.open(path, "rt", encoding="utf-8") as lines:
                while batch := list(itertools.islice(lines, LINES_AT_ONCE)):
                    for line, encoding in zip(batch, tokenizer.encode_batch_fast(batch), strict=True):
                        stream += [vocabulary.sep_id] if line == "\n" else encoding.ids
                    num_rows = len(stream) // width
                    rows = np.empty((num_rows, ROW_LENGTH), np.uint16)
                    rows[:, 0], rows[:, -1] = vocabulary.cls_id, vocabulary.sep_id
                    rows[:, 1:-1] = np.array(stream[: num_rows * width]).reshape(num_rows, width)
                    file.write(rows.tobytes())
                    del stream[: num_rows * width]


def command(case: str, source: str, vocabulary: str, output: Path) -> list[str]:
    """Return the command line of a case."""
    if case in BASELINES:
        return [
            sys.executable,
            __file__,
            f"--source={source}",
            f"--vocabulary={vocabulary}",
            f"--loop={output}",
        ]
    return [
        *(sys.executable, "-m", "eelbert_jax", "prepare"),
        *(f"--config.source={source}", f"--config.vocabulary={vocabulary}", f"--workdir={output}"),
        *(f"--config.row_length={ROW_LENGTH}", "--config.held_out.fraction=0", "--config.unit_mib.min=0.001"),
        f"--config.workers={0 if case == 'prepare' else 1}",
    ]


def run_case(case: str, source: str, vocabulary: str, folder: Path, peaks: dict[str, int]) -> None:
    """Run a case to its end in a new output folder; raise `peaks[case]` to its peak memory in bytes."""
    output = folder / case.replace(", ", "-").replace(" ", "")
    shutil.rmtree(output, ignore_errors=True)
    threads = "false" if case == "loop, 1 core" else "true"
    process = subprocess.Popen(
        command(case, source, vocabulary, output),
        env={**os.environ, "TOKENIZERS_PARALLELISM": threads},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None:
        peaks[case] = max(peaks.get(case, 0), tree_bytes(process.pid))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise RuntimeError(f"The case {case!r} failed: {process.communicate()[1]}")


def tree_bytes(pid: int) -> int:
    """Return the memory of a process and its children, 0 where /proc does not tell or they have gone."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += tree_bytes(int(child))
    except OSError:
        return total
    return total


def check_equal_rows(folder: Path) -> None:
    """Refuse to compare cases that did not do the same work."""
    ours = b"".join(path.read_bytes() for path in sorted((folder / "prepare" / "train").iterdir()))
    if not ours or ours != (folder / "loop" / "rows.bin").read_bytes():
        raise RuntimeError("Our rows and the loop's differ, so their times say nothing.")


def real_texts(num_bytes: int) -> Iterator[str]:
    """Yield texts of about `num_bytes`: of Wikipedia and of books, or of this machine's documentation."""
    data = os.environ.get("EELBERT_DATA")
    if data:
        for name in ("enwiki-03", "gutenberg-03", "enwiki-07", "gutenberg-07"):
            with lzma.open(Path(data, "corpus", f"{name}.txt.xz"), "rt", encoding="utf-8") as lines:
                yield "".join(lines.readlines(num_bytes))
        return
    from eelbert_jax.corpus.documents import ReadOptions, ReadTally
    from eelbert_jax.corpus.sources import SourceOptions, find_units

    parts: list[str] = []
    for unit in find_units("docs", SourceOptions(docs_bytes=24 * num_bytes), ReadOptions()):
        for chunk in unit.read(ReadOptions(), ReadTally()):
            if parts and chunk.starts_document and sum(map(len, parts)) >= num_bytes:
                yield "".join(parts)
                parts = []
            parts.append("\n" + chunk.text if parts and chunk.starts_document else chunk.text)


def make_corpus(folder: Path, num_bytes: int) -> str:
    """Write at most four xz files of real text and return their glob."""
    folder.mkdir()
    for number, text in enumerate(itertools.islice(real_texts(num_bytes), 4)):
        (folder / f"{number}.txt.xz").write_bytes(lzma.compress(text.rstrip("\n").encode() + b"\n"))
    return str(folder / "*.txt.xz")


def make_vocabulary(source: str, path: Path) -> str:
    """Train a vocabulary on the text and return its path."""
    from eelbert_jax.vocabulary import save_vocabulary, train_vocabulary

    texts = (lzma.decompress(Path(name).read_bytes()).decode() for name in sorted(glob.glob(source)))
    save_vocabulary(train_vocabulary(texts, 8192), path)
    return str(path)


def text_bytes(source: str) -> int:
    """Return the size of the text of all files, decompressed."""
    return sum(len(lzma.decompress(Path(name).read_bytes())) for name in glob.glob(source))


def main() -> None:
    """Compare the cases and print a JSON line for each comparison."""
    parser = _measure.parser(__doc__)
    parser.add_argument("--source", help="glob of .txt.xz files, a blank line between documents")
    parser.add_argument("--vocabulary", help="WordPiece vocabulary; without it one is trained on the text")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        plain_loop(options.source, options.vocabulary, options.loop)
        return
    if not options.json:
        print(_measure.describe_machine(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.source or make_corpus(folder / "corpus", 1_500_000 if options.quick else 12_000_000)
        vocabulary = options.vocabulary or make_vocabulary(source, folder / "vocab.txt")
        peaks: dict[str, int] = {}
        cases = {
            case: functools.partial(run_case, case, source, vocabulary, folder, peaks)
            for case in (*OURS, *BASELINES)
        }
        seconds = _measure.interleaved(cases, turns=1 if options.quick else 5, warmup=0)
        check_equal_rows(folder)
        megabytes = text_bytes(source) / 1e6
    for ours, baseline in zip(OURS, BASELINES, strict=True):
        case = f"{megabytes:.0f} MB of text, {ours} against {baseline}"
        speeds = (megabytes / seconds[ours], megabytes / seconds[baseline])
        _measure.report("prepare", case, *speeds, "MB/s", options.json)
        if peaks[ours]:
            _measure.report(
                "prepare", case, peaks[ours] / 2**20, peaks[baseline] / 2**20, "MiB", options.json
            )


if __name__ == "__main__":
    main()
