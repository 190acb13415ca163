"""`eelbert prepare` from the command line to the rows: the same bytes however it runs, and nothing lost."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from eelbert_jax.corpus.documents import CHUNK_CHARACTERS, is_held_out
from eelbert_jax.corpus.rows import Rows, read_manifest
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from eelbert_jax.vocabulary import make_tokenizer
from support.preparations import DOCUMENTS_A_FILE, NUM_FILES, REFUSE, VOCABULARY, document, files_of, flags


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


# Progress


def test_time_left_counts_the_work_of_this_run(monkeypatch):
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    line = prepare.ProgressLine(stream)
    line(100 << 20, 50 << 20, 10 << 20)  # 10 MiB in 20 s, 40 MiB are left
    assert stream.getvalue() == " 60.0% of 100 MiB of input, 0.50 MiB/s, 1.3 min left\n"
