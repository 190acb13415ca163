"""What `eelbert predict` reads: streams, tables and columns, in blocks, and what is wrong in them."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.corpus import storage
from eelbert_jax.datasets import tables
from eelbert_jax.datasets.tables import Tally
from eelbert_jax.errors import UserError
from eelbert_jax.inference import queries
from eelbert_jax.jobs import predict
from support.predictions import records, stdin


def test_many_lines_are_never_all_in_memory(monkeypatch):
    """A stream is read on only when what was read is answered."""
    monkeypatch.setattr(queries, "CHUNK_BYTES", 170)
    stream = io.BytesIO(b"the file opens .\n" * 1000)
    source = queries.Source("", "", "", "", "", reads_pairs=False)
    chunks = queries.read_queries(source, stream, Tally())
    assert len(next(chunks)) == 10
    assert stream.tell() == 170
    next(chunks)
    assert stream.tell() == 340


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".conll"])
def test_a_large_file_is_read_as_it_is_answered(tmp_path, monkeypatch, suffix):
    """Of a table, in blocks, and of columns of words too; what is wrong further on stops nothing before."""
    path, column = tmp_path / f"large{suffix}", "0" if suffix == ".conll" else "review"
    line = {".jsonl": '{{"review": "run {}"}}\n', ".conll": "run O\n{} O\n\n"}.get(suffix, "run {}\n")
    header = "" if suffix in (".jsonl", ".conll") else "review\n"
    path.write_bytes((header + "".join(map(line.format, range(9000)))).encode() + b"\xff\n")
    read = []
    original = storage.open_file

    def counted(name):
        read.append(original(name))
        return read[-1]

    monkeypatch.setattr(storage, "open_file", counted)
    monkeypatch.setattr(tables, "BLOCK_BYTES", 1000)
    source = queries.Source("", "", str(path), column, "", reads_pairs=False)
    chunks = queries.read_queries(source, io.BytesIO(), Tally())
    assert [query.first for query in next(chunks)[:2]] in (["run 0", "run 1"], [("run", "0"), ("run", "1")])
    (file,) = read
    assert file.tell() < path.stat().st_size / 2
    rest = [item for chunk in chunks for item in chunk]
    assert len(rest) + queries.CHUNK_ROWS == 9001
    assert isinstance(rest[-1], UserError)


def test_answers_before_a_bad_line_are_given(sst2, monkeypatch, capsys):
    lines = b"the file\nthe table\n\na runner\na\tb\tc\na table\n"
    stdin(monkeypatch, lines)
    assert main(["predict", f"--checkpoint={sst2}"]) == 2
    said = capsys.readouterr()
    assert [line.split("\t")[2] for line in said.out.splitlines()] == ["the file", "the table"]
    assert "standard input, line 3 is ''" in said.err
    assert "--skip_bad" in said.err
    stdin(monkeypatch, lines)
    assert main(["predict", f"--checkpoint={sst2}", "--skip_bad"]) == 0
    said = capsys.readouterr()
    texts = [line.split("\t")[2] for line in said.out.splitlines()]
    assert texts == ["the file", "the table", "a runner", "a table"]
    assert "the first of them: standard input, line 3 is ''" in said.err
    assert said.err.endswith("\n2 texts were left out.\n")


def table(tmp_path, suffix):
    """Write a table of reviews with a column that is none of the model's business; return its path."""
    rows = [("the file opens .", "yes"), ("a table, the file", "no"), ("the run", "yes")]
    path = tmp_path / f"reviews{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"review": [a for a, _ in rows], "verdict": [b for _, b in rows]}), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"review": a, "verdict": b}) + "\n" for a, b in rows))
    else:
        line = {".csv": '"{}",{}\n', ".tsv": "{}\t{}\n"}[suffix].format
        path.write_text("".join(line(*row) for row in (("review", "verdict"), *rows)))
    return path, [a for a, _ in rows]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_column_of_a_table_is_answered(sst2, tmp_path, capsys, suffix):
    path, texts = table(tmp_path, suffix)
    words = [f"--checkpoint={sst2}", f"--file={path}"]
    assert [record["text"] for record in records(capsys, *words, "--text_column=review")] == texts
    with pytest.raises(UserError, match="text_column"):  # a line of it is no text
        predict.main(words)


def test_json_lines_come_through_a_pipe(mnli, sst2, capsys, monkeypatch):
    pair = {"text": "the file", "second_text": "a table", "score": 1}
    stdin(monkeypatch, json.dumps(pair).encode() + b"\n")
    (answer,) = records(capsys, f"--checkpoint={mnli}", "--text_column=text")
    assert (answer["text"], answer["second_text"]) == ("the file", "a table")
    stdin(monkeypatch, b'{"body": "the run"}\n{"body": null}\n[1]\n{"body\n' + b"[" * 5000 + b"\n")
    assert main(["predict", f"--checkpoint={sst2}", "--text_column=body", "--skip_bad", "--json"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["text"] for line in said.out.splitlines()] == ["the run"]
    assert "line 2 has no text in column 'body'" in said.err
    assert said.err.endswith("4 texts were left out.\n")


def test_pairs_come_from_two_columns(mnli, tmp_path, capsys):
    (tmp_path / "pairs.csv").write_text("id,claim,proof\n1,the file,a table\n2,a run,\n3,the,a\n")
    words = [f"--checkpoint={mnli}", f"--file={tmp_path / 'pairs.csv'}"]
    columns = ["--text_column=claim", "--second_text_column=proof"]
    found = records(capsys, *words, *columns, "--skip_bad")
    assert [(one["text"], one["second_text"]) for one in found] == [("the file", "a table"), ("the", "a")]
    with pytest.raises(UserError, match="line 3 has no text in column 'proof'"):
        predict.main([*words, *columns])


def test_columns_of_words_are_tagged(tagger, tmp_path, capsys):
    (tmp_path / "test.conll").write_text("the DT O\nfile NN B-X\n\nopens VB O\n")
    found = records(capsys, f"--checkpoint={tagger}", f"--file={tmp_path / 'test.conll'}")
    assert [[word["word"] for word in one["words"]] for one in found] == [["the", "file"], ["opens"]]
    (tmp_path / "test.txt").write_text("1\tthe\n2\tfile\n")
    found = records(capsys, f"--checkpoint={tagger}", f"--file={tmp_path / 'test.txt'}", "--text_column=1")
    assert [word["word"] for word in found[0]["words"]] == ["the", "file"]
