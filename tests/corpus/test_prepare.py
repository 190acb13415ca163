"""`eelbert prepare` from the command line to the rows: the same bytes however it runs, and nothing lost."""

import importlib.util
import io
import json
import lzma
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from eelbert_jax import vocabulary as vocabulary_module
from eelbert_jax.corpus import docstrings, workers
from eelbert_jax.corpus import prepare as corpus_prepare
from eelbert_jax.corpus.documents import CHUNK_CHARACTERS, is_held_out
from eelbert_jax.corpus.rows import Rows, read_manifest
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from eelbert_jax.vocabulary import (
    SPECIAL_TOKENS,
    Vocabulary,
    load_vocabulary,
    make_tokenizer,
    save_vocabulary,
)

WORDS = tuple(f"word{number}" for number in range(200))
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS, "."))
NUM_FILES, DOCUMENTS_A_FILE = 6, 40
REFUSE = "--config.on_bad_record=refuse"


def document(number: int) -> str:
    generator = np.random.default_rng(number)
    sentences = (" ".join(generator.choice(WORDS, 20)) + "." for _ in range(generator.integers(1, 8)))
    return "\n".join(sentences)


@pytest.fixture
def corpus(tmp_path):
    """Write six files of forty documents and a vocabulary, and return the folder."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(NUM_FILES):
        numbers = range(DOCUMENTS_A_FILE * number, DOCUMENTS_A_FILE * (number + 1))
        (folder / f"{number}.txt").write_text("\n\n".join(map(document, numbers)))
    save_vocabulary(VOCABULARY, folder / "vocab")
    return folder


def flags(corpus: Path, workdir: Path, *more: str) -> list[str]:
    """Return the command line of a small preparation, one unit a file."""
    return [
        f"--config.source={corpus}/*.txt",
        f"--config.vocabulary={corpus}/vocab",
        f"--workdir={workdir}",
        "--config.row_length=16",
        "--config.held_out.fraction=0.1",
        "--config.unit_mib.min=0.01",
        "--config.workers=1",
        *more,
    ]


def files_of(workdir: Path) -> dict[str, bytes]:
    """Return what a preparation made: shards, vocabulary and manifest."""
    names = [*workdir.glob("train/*"), *workdir.glob("heldout/*"), workdir / "vocab.txt"]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in [*names, workdir / "manifest.json"]}


def words_of(workdir: Path, split: str) -> list[str]:
    """Return the words of all rows of a split, one unit after the other, without the last partial rows."""
    rows = Rows.open(workdir, split)
    return " ".join(rows.decode(rows[np.arange(len(rows))])).split()


# What comes out


def test_rows_read_back_are_the_normalised_text(corpus, tmp_path):
    prepare.main(flags(corpus, tmp_path / "rows", "--config.unit_mib.min=1"))
    manifest = read_manifest(tmp_path / "rows")
    tokenizer = make_tokenizer(VOCABULARY)
    expected: dict[str, list[str]] = {"train": [], "heldout": []}
    for number in range(NUM_FILES * DOCUMENTS_A_FILE):
        text = document(number)
        words = " ".join(tokenizer.encode(text).tokens).replace(" ##", "").split()
        split = expected["heldout" if is_held_out(text, 0.1, 0) else "train"]
        split += (["[SEP]"] if split else []) + words
    for split, words in expected.items():
        counts = manifest["splits"][split]
        found = words_of(tmp_path / "rows", split)
        assert found == words[: len(found)]
        assert len(words) - len(found) == counts["num_dropped"] < 14
        assert counts["num_tokens"] == len(words) - counts["num_documents"] + 1
        assert len(found) == counts["num_rows"] * 14
        Rows.open(tmp_path / "rows", split).verify()
    assert sum(counts["num_documents"] for counts in manifest["splits"].values()) == 240
    assert 5 < manifest["splits"]["heldout"]["num_documents"] < 50


def test_summary_counts_and_shown_rows_are_text(corpus, tmp_path, capsys):
    prepare.main(flags(corpus, tmp_path / "rows", "--config.show_rows=2"))
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"train: \d+ rows of 16 tokens from \d+ documents .* 0\.00% unknown, .*", lines[0])
    assert [line.split(":")[0] for line in lines[2:]] == ["train 0", "train 1", "heldout 0", "heldout 1"]
    assert document(0).split()[0] in lines[2] or document(1).split()[0] in lines[2]


def test_prepare_does_not_import_jax():
    slow = "('jax', 'tensorflow_datasets', 'pyarrow', 'fsspec', 'apache_beam')"
    code = f"import sys, eelbert_jax.jobs.prepare; print([name for name in {slow} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[]"


def test_held_out_documents_are_picked_by_their_text_alone():
    texts = [document(number) for number in range(4000)]
    picked = [is_held_out(text, 0.1, 0) for text in texts]
    assert 300 < sum(picked) < 500
    assert picked != [is_held_out(text, 0.1, 1) for text in texts], "the seed picks"
    more = [is_held_out(text, 0.2, 0) for text in texts]
    assert all(large for small, large in zip(picked, more, strict=True) if small), (
        "more hold out the same and more"
    )
    assert not any(is_held_out(text, 0.0, 0) for text in texts)
    assert all(is_held_out(text + "\n", 0.1, 0) == held for text, held in zip(texts, picked, strict=True))
    long = "x" * CHUNK_CHARACTERS
    assert is_held_out(long, 0.5, 0) == is_held_out(long + "y", 0.5, 0)


def test_equal_documents_never_stand_on_both_sides(corpus, tmp_path):
    (corpus / "0.txt").write_text((corpus / "5.txt").read_text())
    prepare.main(flags(corpus, tmp_path / "rows"))
    records = [json.loads((tmp_path / f"rows/units/00000{n}.json").read_text())["splits"] for n in (0, 5)]
    for split in ("train", "heldout"):
        assert records[0][split]["shard"]["sha256"] == records[1][split]["shard"]["sha256"]


# The same bytes


def test_result_does_not_depend_on_the_run(corpus, tmp_path):
    prepare.main(flags(corpus, tmp_path / "one"))
    prepare.main(flags(corpus, tmp_path / "two", "--config.workers=2"))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    prepare.main(flags(corpus, tmp_path / "other", "--config.held_out.seed=1"))
    assert files_of(tmp_path / "one") != files_of(tmp_path / "other")  # negative control


def test_finished_work_is_not_done_again(corpus, tmp_path, monkeypatch):
    prepare.main(flags(corpus, tmp_path / "rows"))
    before = files_of(tmp_path / "rows")
    (tmp_path / "rows/units/000003.json").unlink()
    encoded = []
    encode = WordEncoder.encode
    monkeypatch.setattr(WordEncoder, "encode", lambda self, text: encoded.append(text) or encode(self, text))
    prepare.main(flags(corpus, tmp_path / "rows"))
    assert files_of(tmp_path / "rows") == before
    looked_at_and_prepared = 2 * (corpus / "3.txt").read_text()
    assert "".join(encoded).replace("\n", "") == looked_at_and_prepared.replace("\n", "")


def edit(path: Path, old: bytes, new: bytes) -> None:
    """Change a file at the same size, and the time of its last change in any case."""
    path.write_bytes(path.read_bytes().replace(old, new))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def test_input_edited_at_the_same_size_is_prepared_again(corpus, tmp_path, capsys):
    prepare.main(flags(corpus, tmp_path / "rows"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows/units").iterdir()}
    edit(corpus / "2.txt", b"word1 ", b"word2 ")
    prepare.main(flags(corpus, tmp_path / "rows"))
    assert f"The text of 1 of 6 units has changed; they are prepared again. The first: {corpus}/2.txt" in (
        capsys.readouterr().err
    )
    prepare.main(flags(corpus, tmp_path / "fresh"))
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "fresh")
    redone = [path.name for path, moment in before.items() if path.stat().st_mtime_ns != moment]
    assert redone == ["000002.json"]


def test_input_that_an_edit_made_unreadable_is_said_and_the_old_rows_stay(corpus, tmp_path):
    prepare.main(flags(corpus, tmp_path / "rows"))
    before = files_of(tmp_path / "rows")
    edit(corpus / "2.txt", b"word1 ", b"\xff\xff\xff\xff1 ")
    with pytest.raises(UserError, match=r"2\.txt, line \d+, .*invalid UTF-8"):
        prepare.main(flags(corpus, tmp_path / "rows", REFUSE))
    assert files_of(tmp_path / "rows") == before


def test_input_that_was_only_copied_is_not_prepared_again(corpus, tmp_path, capsys, monkeypatch):
    prepare.main(flags(corpus, tmp_path / "rows"))
    before = files_of(tmp_path / "rows")
    edit(corpus / "2.txt", b"", b"")
    monkeypatch.setattr(WordEncoder, "encode", None)
    prepare.main(flags(corpus, tmp_path / "rows"))
    assert files_of(tmp_path / "rows") == before
    assert "changed" not in capsys.readouterr().err


def test_rows_of_an_older_version_go_on_only_where_nothing_is_left_to_do(corpus, tmp_path):
    prepare.main(flags(corpus, tmp_path / "rows"))
    before = files_of(tmp_path / "rows")
    plan = json.loads((tmp_path / "rows/plan.json").read_text())
    del plan["held_out_by"]
    (tmp_path / "rows/plan.json").write_text(json.dumps(plan))
    for path in (tmp_path / "rows/units").iterdir():
        record = json.loads(path.read_text())
        for name in ("input", "num_records", "num_bad", "first_bad"):
            del record[name]
        path.write_text(json.dumps(record))
    prepare.main(flags(corpus, tmp_path / "rows"))
    assert {**files_of(tmp_path / "rows"), "manifest.json": b""} == {**before, "manifest.json": b""}
    (tmp_path / "rows/units/000003.json").unlink()
    with pytest.raises(UserError, match="held_out_by: None there, canonical text now"):
        prepare.main(flags(corpus, tmp_path / "rows"))


def test_the_shards_are_those_of_earlier_versions(corpus, tmp_path):
    """Bless anew only where the format of the rows or the choice of held-out documents changes on purpose."""
    prepare.main(flags(corpus, tmp_path / "rows", "--config.unit_mib.min=1"))
    splits = read_manifest(tmp_path / "rows")["splits"]
    assert {name: split["shards"][0]["sha256"][:16] for name, split in splits.items()} == {
        "train": "61096c570b361a0a",
        "heldout": "45f9cd61377c002d",
    }


# Text that is not what it should be


def jsonl_flags(corpus: Path, workdir: Path, *more: str) -> list[str]:
    return flags(corpus, workdir, f"--config.source={corpus}/*.jsonl", *more)


def test_bad_records_are_skipped_counted_and_the_first_is_said(corpus, tmp_path, capsys):
    for number in range(3):
        lines = [json.dumps({"text": document(40 * number + one)}) for one in range(40)]
        (corpus / f"{number}.jsonl").write_text("\n".join([*lines, *["{}", '{"text": null}'] * (number > 0)]))
    prepare.main(jsonl_flags(corpus, tmp_path / "rows", "--config.workers=2"))
    shown = capsys.readouterr().out.splitlines()[-1]
    assert shown.startswith(
        f"4 bad records skipped, the first: {corpus}/1.jsonl, line 41: expected an object"
    )
    manifest = read_manifest(tmp_path / "rows")
    assert sum(split["num_documents"] for split in manifest["splits"].values()) == 120
    with pytest.raises(UserError, match=r"4 bad records were skipped, the first: .*1\.jsonl, line 41"):
        prepare.main(jsonl_flags(corpus, tmp_path / "rows", REFUSE))
    with pytest.raises(
        UserError, match=r"1\.jsonl, line 41: .* skip such records by --config\.on_bad_record"
    ):
        prepare.main(jsonl_flags(corpus, tmp_path / "refused", REFUSE))
    prepare.main(jsonl_flags(corpus, tmp_path / "refused"))
    (tmp_path / "rows/manifest.json").unlink()
    prepare.main(jsonl_flags(corpus, tmp_path / "rows"))
    assert files_of(tmp_path / "refused") == files_of(tmp_path / "rows")


def test_input_whose_records_are_mostly_bad_is_refused_before_the_work(corpus, tmp_path):
    (corpus / "a.jsonl").write_text("\n".join(json.dumps({"body": document(n)}) for n in range(40)))
    with pytest.raises(
        UserError, match=r"40 of 40 records are bad, the first: .*line 1.*--config\.text_field"
    ):
        prepare.main(jsonl_flags(corpus, tmp_path / "rows"))
    assert not list((tmp_path / "rows/units").iterdir())


def test_latin_1_is_not_taken_for_utf8_with_bad_lines(corpus, tmp_path):
    (corpus / "0.txt").write_bytes(b"\n\n".join(b"caf\xe9 %d" % number for number in range(40)))
    with pytest.raises(UserError, match=r"40 of 40 records are bad, the first: .*line 1, byte 4 .*iconv"):
        prepare.main(flags(corpus, tmp_path / "rows", f"--config.source={corpus}/0.txt"))


def test_a_vocabulary_that_does_not_fit_is_refused_before_the_work(corpus, tmp_path, capsys):
    for path in corpus.glob("*.txt"):
        path.write_text(path.read_text().upper())
    cased = flags(corpus, tmp_path / "rows", "--config.lowercase=False")
    with pytest.raises(UserError, match=r"% of the text's tokens are \[UNK\].*--config\.lowercase=True"):
        prepare.main(cased)
    assert "tokens looked at are [UNK]" in capsys.readouterr().err
    assert not list((tmp_path / "rows/units").iterdir())
    prepare.main([*cased, "--config.max_unknown_percent=100"])
    assert "% unknown" in capsys.readouterr().out
    prepare.main(flags(corpus, tmp_path / "uncased"))


def test_a_vocabulary_that_fits_the_beginnings_alone_is_refused_and_no_work_is_lost(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(corpus_prepare, "SAMPLE_CHARACTERS", 1)
    for path in corpus.glob("*.txt"):
        path.write_text("\n\n".join([path.read_text(), *["foreign " * 700] * 6]))
    with pytest.raises(UserError, match=r"\[UNK\]"):
        prepare.main(flags(corpus, tmp_path / "rows"))
    monkeypatch.setattr(WordEncoder, "encode", None)
    prepare.main(flags(corpus, tmp_path / "rows", "--config.max_unknown_percent=100"))
    Rows.open(tmp_path / "rows", "train").verify()


def test_a_vocabulary_of_the_text_itself_fits(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary_module, "_ALPHABET", 10)
    more = ("--config.vocabulary=", "--config.train_vocabulary.size=300", "--config.max_unknown_percent=0")
    prepare.main(flags(corpus, tmp_path / "rows", *more))
    assert read_manifest(tmp_path / "rows")["splits"]["train"]["num_unknown"] > 0


def test_a_name_that_is_no_utf8_goes_through(corpus, tmp_path, capsys):
    (corpus / "0.txt").rename(corpus / "caf\udce9.txt")
    with open(corpus / "caf\udce9.txt", "ab") as file:
        file.write(b"\ncaf\xe9")
    prepare.main(flags(corpus, tmp_path / "rows", f"--config.source={corpus}/caf\udce9.txt"))
    assert "caf\\udce9.txt, line " in capsys.readouterr().out


def test_vocabulary_is_trained_once_and_kept(corpus, tmp_path, capsys):
    command = flags(corpus, tmp_path / "rows", "--config.vocabulary=", "--config.train_vocabulary.size=300")
    prepare.main(command)
    assert "Training a vocabulary of 300 tokens" in capsys.readouterr().err
    vocabulary = load_vocabulary(tmp_path / "rows/vocab.txt")
    assert len(SPECIAL_TOKENS) < vocabulary.size <= 300
    assert Rows.open(tmp_path / "rows", "train").vocabulary == vocabulary
    before = files_of(tmp_path / "rows")
    (tmp_path / "rows/units/000003.json").unlink()
    prepare.main(command)
    assert "Training" not in capsys.readouterr().err
    assert files_of(tmp_path / "rows") == before
    with pytest.raises(UserError, match="trained_vocabulary_size: 300 there, 200 now"):
        prepare.main([*command, "--config.train_vocabulary.size=200"])


# Nothing lost


def test_bad_file_is_named_and_the_rest_is_kept(corpus, tmp_path):
    good = flags(corpus, tmp_path / "good")
    prepare.main(good)
    content = (corpus / "4.txt").read_bytes()
    (corpus / "4.txt").write_bytes(content.replace(b"word", b"\xff\xffrd", 1))
    with pytest.raises(UserError, match=r"4\.txt, line 1, byte 1 of the line: invalid UTF-8"):
        prepare.main(flags(corpus, tmp_path / "rows", REFUSE))
    assert len(list((tmp_path / "rows/units").glob("*.json"))) == 4
    assert not list((tmp_path / "rows").glob("*/*.tmp"))
    with pytest.raises(UserError, match=r"No prepared rows .* the same command again finishes it"):
        Rows.open(tmp_path / "rows", "train")
    (corpus / "4.txt").write_bytes(content)
    prepare.main(flags(corpus, tmp_path / "rows"))
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "good")


def test_bad_file_in_a_worker_is_the_same_error(corpus, tmp_path):
    (corpus / "1.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"1\.txt, line 1, byte 1 of the line: invalid UTF-8"):
        prepare.main(flags(corpus, tmp_path / "rows", "--config.workers=2", REFUSE))


def test_bad_file_met_while_training_a_vocabulary_is_the_same_error(corpus, tmp_path):
    (corpus / "1.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"1\.txt, line 1, byte 1 of the line: invalid UTF-8"):
        prepare.main(flags(corpus, tmp_path / "rows", "--config.vocabulary=", REFUSE))


def test_replaced_bytes_are_counted(corpus, tmp_path, capsys):
    (corpus / "1.txt").write_bytes((corpus / "1.txt").read_bytes() + b" \xff \xff")
    prepare.main(flags(corpus, tmp_path / "rows", "--config.on_invalid_utf8=replace"))
    assert read_manifest(tmp_path / "rows")["num_replaced"] == 2
    assert "2 invalid UTF-8 sequences replaced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("--config.row_length=32", "row_length: 16 there, 32 now"),
        ("--config.lowercase=False", "lowercase: True there, False now"),
        ("--config.unit_mib.min=1", "unit 0: "),
    ],
)
def test_folder_of_another_preparation_is_refused(corpus, tmp_path, change, difference):
    prepare.main(flags(corpus, tmp_path / "rows"))
    before = {path: path.read_bytes() for path in (tmp_path / "rows").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"rows of another preparation .*{difference}.*another --workdir"):
        prepare.main(flags(corpus, tmp_path / "rows", change))
    assert {path: path.read_bytes() for path in (tmp_path / "rows").rglob("*") if path.is_file()} == before


def test_input_that_cannot_be_read_is_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(docstrings, "documentation", lambda path: path.with_name("gone").read_bytes())
    with pytest.raises(UserError, match=r"Cannot read .*gone: No such file"):
        prepare.main(
            [
                f"--workdir={tmp_path / 'rows'}",
                "--config.docs.max_mib=0.5",
                "--config.vocabulary=" + str(_vocabulary_file(tmp_path)),
                "--config.workers=1",
            ]
        )


def _vocabulary_file(folder: Path) -> Path:
    save_vocabulary(VOCABULARY, folder / "vocab")
    return folder / "vocab"


def test_folder_in_use_is_refused(corpus, tmp_path):
    import fcntl

    (tmp_path / "rows").mkdir()
    with open(tmp_path / "rows/.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another process works in"):
            prepare.main(flags(corpus, tmp_path / "rows"))


def test_unwritable_folder_is_refused(corpus, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"Cannot write to the workdir '.*file/rows': Not a directory.*--workdir"
    ):
        prepare.main(flags(corpus, tmp_path / "file/rows"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--config.row_length=2", "row_length must be at least 3"),
        ("--config.row_length=100000", "not enough for one row of 100000"),
        ("--config.held_out.fraction=1.0", r"held_out_fraction must lie in \[0, 1\)"),
        ("--config.held_out.seed=-1", "held_out_seed"),
        ("--config.workers=-1", "workers must be 0"),
        ("--config.source=none/*.txt", "No file matches"),
        ("--config.vocabulary=none", "Cannot read the vocabulary none"),
        ("--config.vocabulary=", "has no room|vocabulary"),
    ],
)
def test_impossible_settings_are_refused(corpus, tmp_path, change, message):
    more = ["--config.train_vocabulary.size=5"]
    with pytest.raises(UserError, match=message):
        prepare.main(flags(corpus, tmp_path / "rows", *more, change))


def test_vocabulary_without_mask_is_refused(corpus, tmp_path):
    (corpus / "vocab").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n")
    with pytest.raises(UserError, match=r"has no \[MASK\]"):
        prepare.main(flags(corpus, tmp_path / "rows"))


def test_no_held_out_row_is_said(corpus, tmp_path, capsys):
    prepare.main(flags(corpus, tmp_path / "rows", "--config.held_out.fraction=0", "--config.show_rows=1"))
    shown = capsys.readouterr().out
    assert "heldout has no row: give more text or another --config.held_out.fraction" in shown
    assert shown.splitlines()[-1].startswith("train 0: ")


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("spark", "engine='spark' is not one of local, beam"),
        ("beam", r"needs Apache Beam, .*`pip install 'eelbert_jax\[beam\]'`"),
    ],
)
def test_an_engine_that_is_not_there_is_refused(corpus, tmp_path, monkeypatch, engine, message):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        prepare.main(flags(corpus, tmp_path / "rows", f"--config.engine={engine}"))
    assert not (tmp_path / "rows").exists()


# Progress


def test_time_left_counts_the_work_of_this_run(monkeypatch):
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    line = prepare.ProgressLine(stream)
    line(100 << 20, 50 << 20, 10 << 20)  # 10 MiB in 20 s, 40 MiB are left
    assert stream.getvalue() == " 60.0% of 100 MiB of input, 0.50 MiB/s, 1.3 min left\n"


# Processes that are killed


def start(arguments: list[str], **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "eelbert_jax", "prepare", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, cwd=Path(__file__).parents[2], **options
    )


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


@pytest.fixture
def large_corpus(corpus):
    """Add compressed files that take some seconds."""
    text = "\n\n".join(document(number) for number in range(2000))
    for number in range(6):
        (corpus / f"large{number}.txt.xz").write_bytes(lzma.compress(f"{text} {number}".encode(), preset=0))
    return corpus


def large_flags(corpus: Path, workdir: Path, *more: str) -> list[str]:
    return flags(corpus, workdir, f"--config.source={corpus}/*.txt*", "--config.workers=2", *more)


def children_of(process: subprocess.Popen) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="looks processes up in /proc (Linux)"
)


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("units_before", [1, 4, 8])
def test_killed_preparation_goes_on_to_the_same_bytes(large_corpus, tmp_path, units_before):
    prepare.main(large_flags(large_corpus, tmp_path / "whole"))
    process = start(large_flags(large_corpus, tmp_path / "rows"))
    units = tmp_path / "rows/units"
    wait_for(lambda: len(list(units.glob("*.json"))) >= units_before)
    workers_of_it = children_of(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(map(is_running, workers_of_it)), seconds=10)
    done = {path: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert not (tmp_path / "rows/manifest.json").exists(), "the kill came too late to test anything"
    prepare.main(large_flags(large_corpus, tmp_path / "rows"))
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished unit was prepared again"
    assert not list((tmp_path / "rows").glob("*/*.tmp"))


@pytest.mark.slow
@needs_proc
def test_killed_worker_is_one_clear_error(large_corpus, tmp_path):
    process = start(large_flags(large_corpus, tmp_path / "rows"))
    wait_for(lambda: len(list((tmp_path / "rows/units").glob("*.json"))) >= 2)
    workers_of_it = [
        pid for pid in children_of(process) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    os.kill(workers_of_it[0], signal.SIGKILL)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: A worker process was killed by signal 9" in shown
    assert "Traceback" not in shown
    prepare.main(large_flags(large_corpus, tmp_path / "rows"))


@pytest.mark.slow
def test_full_disk_is_one_clear_error_and_finished_units_stay(large_corpus, tmp_path):
    """A limit on the size of a file stands in for the disk: writing fails in the middle of a shard."""
    (large_corpus / "large5.txt.xz").write_bytes(
        lzma.compress("\n\n".join(document(number) for number in range(8000)).encode(), preset=0)
    )
    arguments = large_flags(large_corpus, tmp_path / "rows")
    limited = f"ulimit -f 1200; exec {sys.executable} -m eelbert_jax prepare " + " ".join(
        f"'{a}'" for a in arguments
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, cwd=root, timeout=120)
    assert done.returncode == 2
    assert re.search(r"error: Cannot write to .*rows: File too large\. Make room", done.stderr)
    assert "Traceback" not in done.stderr
    units = len(list((tmp_path / "rows/units").glob("*.json")))
    assert units >= 6
    assert not list((tmp_path / "rows").glob("*/*.tmp"))
    prepare.main(arguments)
    prepare.main(large_flags(large_corpus, tmp_path / "whole"))
    assert files_of(tmp_path / "rows") == files_of(tmp_path / "whole")


# Workers


class Failing:
    """A task that fails in a way no one foresaw."""

    def __call__(self, item, advance):
        raise KeyError(item)


def test_defect_in_a_worker_is_not_taken_for_bad_input(capfd):
    with pytest.raises(RuntimeError, match="worker process failed with status 1"):
        workers.run_tasks(Failing(), [0, 1], 2, lambda done: None)
    assert "KeyError" in capfd.readouterr().err
