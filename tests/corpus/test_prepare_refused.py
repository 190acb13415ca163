"""`eelbert prepare` given text, a vocabulary, a folder or settings that are not what they should be."""

import importlib.util
import json
from pathlib import Path

import pytest

from eelbert_jax import vocabulary as vocabulary_module
from eelbert_jax.corpus import docstrings
from eelbert_jax.corpus import prepare as corpus_prepare
from eelbert_jax.corpus.rows import Rows, read_manifest
from eelbert_jax.corpus.word_encoder import WordEncoder
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare
from eelbert_jax.vocabulary import SPECIAL_TOKENS, load_vocabulary, save_vocabulary
from support.preparations import REFUSE, VOCABULARY, document, files_of, flags

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


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"held_out_by": None}, "held_out_by: None there, canonical text now"),
        ({"tokenizers": "0.1"}, "tokenizers: 0.1 there, "),
    ],
)
def test_what_another_version_began_is_not_the_users_fault(corpus, tmp_path, change, difference):
    """The same input and settings would not mend it: of finished rows only what both plans say counts."""
    rows = tmp_path / "rows"
    prepare.main(flags(corpus, rows))
    plan = {**json.loads((rows / "plan.json").read_text()), **change}
    (rows / "plan.json").write_text(json.dumps({k: v for k, v in plan.items() if v is not None}))
    (rows / "units/000000.json").unlink()
    with pytest.raises(UserError, match=rf"another version .*\({difference}.*Finish it with that version"):
        prepare.main(flags(corpus, rows))


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
        (
            "--config.train_vocabulary.max_mib=-1",
            r"config\.train_vocabulary\.max_mib must be positive, got -1\.0",
        ),
        ("--config.docs.max_mib=nan", r"config\.docs\.max_mib must be positive, got nan"),
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
