"""Prediction: the model's own answers, in the order of the lines, from any source, and clear errors."""

import io
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.corpus import storage
from eelbert_jax.datasets import submission, tables
from eelbert_jax.datasets.tables import Tally
from eelbert_jax.errors import UserError
from eelbert_jax.inference import queries
from eelbert_jax.inference.load import load
from eelbert_jax.jobs import predict
from support.models import NLI_LABELS, logits_alone, save_finetuned, save_pretrained, softmax

TEXTS = [
    "the file opens .",
    "a table " * 30,
    "a runner runs .",
    "the table opens .",
    "the run " * 23 + "a file . " * 9,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def sst2(folder):
    return save_finetuned(folder / "sst2", "sst2", "classify", ("negative", "positive"))


@pytest.fixture(scope="module")
def mnli(folder):
    return save_finetuned(folder / "mnli", "mnli", "classify", NLI_LABELS, pairs=True)


@pytest.fixture(scope="module")
def stsb(folder):
    return save_finetuned(folder / "stsb", "stsb", "regress", pairs=True)


@pytest.fixture(scope="module")
def tagger(folder):
    return save_finetuned(folder / "tagger", "tokens", "tag", ("O", "B-X"), max_length=12)


@pytest.fixture(scope="module")
def pretrained(folder):
    return save_pretrained(folder / "pretrained")


def run(capsys, *words):
    assert main(["predict", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def records(capsys, *words):
    return [json.loads(line) for line in run(capsys, *words, "--json").splitlines()]


def one_by_one(workdir, texts, seconds=None):
    """Return the logits of each text alone."""
    model = load(workdir)
    return np.array(
        [logits_alone(model, *pair) for pair in zip(texts, seconds or [None] * len(texts), strict=True)]
    )


def test_a_file_is_answered_in_order_whatever_the_chunks(sst2, tmp_path, capsys, monkeypatch):
    plain = [text.strip() for text in TEXTS]
    (tmp_path / "texts").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(plain).encode())
    words = [f"--checkpoint={sst2}", f"--file={tmp_path / 'texts'}"]
    at_once = records(capsys, *words)
    assert [record["text"] for record in at_once] == plain
    assert [record["truncated"] for record in at_once] == [False, True, False, False, True]
    for record, shares in zip(at_once, softmax(one_by_one(sst2, plain)), strict=True):
        # Padding adds masked zeros to float32 sums of a few hundred products: the last bits move.
        assert list(record["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
        assert record["label"] == ["negative", "positive"][int(np.argmax(shares))]
        assert record["probability"] == max(record["probabilities"].values())
    assert len({record["probability"] for record in at_once}) > 3
    monkeypatch.setattr(queries, "CHUNK_BYTES", 7)
    for few, many in zip(records(capsys, *words), at_once, strict=True):
        assert few["text"] == many["text"]
        assert few["probability"] == pytest.approx(many["probability"], abs=1e-5)


def test_cut_texts_are_counted_and_windows_read_them_whole(sst2, tmp_path, capsys):
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    words = ["predict", f"--checkpoint={sst2}", f"--file={tmp_path / 'texts'}", "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.err == "2 of 5 texts were cut to 48 tokens; --stride=N reads them whole.\n"
    cut = [json.loads(line)["probability"] for line in said.out.splitlines()]
    assert main([*words, "--stride=8"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    whole = [json.loads(line) for line in said.out.splitlines()]
    assert not any(record["truncated"] for record in whole)
    (expected,) = load(sst2).classify([TEXTS[4].strip()], stride=8)
    assert whole[4]["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert whole[4]["probability"] != pytest.approx(cut[4], abs=1e-3)
    assert whole[0]["probability"] == pytest.approx(cut[0], abs=1e-5)


def stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_text_file_and_standard_input_agree(sst2, tmp_path, capsys, monkeypatch):
    text = run(capsys, f"--checkpoint={sst2}", "--text=the file opens .")
    label, share, echo = text.rstrip("\n").split("\t")
    assert label in ("negative", "positive")
    assert 0.5 <= float(share) <= 1
    assert echo == "the file opens ."
    stdin(monkeypatch, b"the file opens .\n")
    assert run(capsys, f"--checkpoint={sst2}") == text
    (tmp_path / "texts").write_text("the file opens .\n")
    assert run(capsys, f"--checkpoint={sst2}", f"--file={tmp_path / 'texts'}") == text


def test_pairs_by_flag_and_by_tab(mnli, capsys, monkeypatch):
    (flagged,) = records(capsys, f"--checkpoint={mnli}", "--text=the file", "--second_text=a table opens .")
    stdin(monkeypatch, b"the file\ta table opens .\na table opens .\tthe file\n")
    tabbed = records(capsys, f"--checkpoint={mnli}")
    assert list(tabbed[0]) == list(flagged)
    assert tabbed[0]["probabilities"] == pytest.approx(flagged["probabilities"], abs=1e-5)
    assert list(flagged["probabilities"]) == list(NLI_LABELS)
    expected = softmax(one_by_one(mnli, ["the file"], ["a table opens ."]))[0]
    assert list(flagged["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-5)
    assert tabbed[1]["probabilities"] != pytest.approx(flagged["probabilities"], abs=1e-3)


def test_top_labels_are_in_order_of_probability(mnli, capsys):
    words = ["--text=the file", "--second_text=a table ."]
    line = run(capsys, f"--checkpoint={mnli}", *words, "--top=9").rstrip("\n").split("\t")
    assert line[6:] == ["the file", "a table ."]
    assert sorted(line[:6:2]) == sorted(NLI_LABELS)
    assert line[1:6:2] == sorted(line[1:6:2], reverse=True)
    assert run(capsys, f"--checkpoint={mnli}", *words).split("\t")[:2] == line[:2]


def test_regression_gives_the_score(stsb, capsys):
    words = [f"--checkpoint={stsb}", "--text=the file", "--second_text=a table ."]
    expected = one_by_one(stsb, ["the file"], ["a table ."])[0, 0]
    (record,) = records(capsys, *words)
    assert list(record) == ["text", "second_text", "score", "truncated"]
    assert record["score"] == pytest.approx(expected, abs=1e-5)
    assert run(capsys, *words) == f"{expected:.4f}\tthe file\ta table .\n"


def test_fill_mask_prints_words_and_shares(pretrained, capsys, monkeypatch):
    words = [f"--checkpoint={pretrained}", "--fill_mask", "--top=3"]
    text, first, second = run(capsys, *words, "--text=the [MASK] opens [MASK].").splitlines()
    assert text == "the [MASK] opens [MASK]."
    assert len(first.split(", ")) == len(second.split(", ")) == 3
    stdin(monkeypatch, b"[MASK] opens\nthe [MASK] opens [MASK].\n")
    lines = records(capsys, *words)
    assert [len(line["masks"]) for line in lines] == [1, 2]
    best = lines[1]["masks"][0][0]
    assert first.startswith(f"  {best['token']} {best['probability']:.1%}, ")


def test_a_line_is_answered_before_the_next_is_written(sst2):
    words = [sys.executable, "-m", "eelbert_jax", "predict", f"--checkpoint={sst2}", "--json"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for text in ("the file opens .", "a table"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.wait(60) == 0


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


def test_words_beyond_what_the_model_reads_have_no_tag_but_by_windows(tagger, capsys):
    words = [f"--checkpoint={tagger}", "--text=" + "run " * 14]
    lines = run(capsys, *words).split("\n")
    assert [line.split("\t")[1] == "-" for line in lines[:14]] == [False] * 10 + [True] * 4
    (record,) = records(capsys, *words, "--stride=5")
    assert all(word["tag"] in ("O", "B-X") for word in record["words"])
    assert not record["truncated"]


def test_vectors_come_as_json_and_as_an_array(pretrained, sst2, tmp_path, capsys, monkeypatch):
    (tmp_path / "texts.txt").write_text("the file\na table opens .\nthe run\n")
    for checkpoint in (pretrained, sst2):
        words = [f"--checkpoint={checkpoint}", f"--file={tmp_path / 'texts.txt'}", "--embed"]
        expected = load(checkpoint).encode(["the file", "a table opens .", "the run"])
        found = [json.loads(line) for line in run(capsys, *words).splitlines()]
        assert list(found[0]) == ["text", "vector", "truncated"]
        np.testing.assert_allclose([record["vector"] for record in found], expected, atol=1e-5)
        for size in (1 << 16, 9):
            monkeypatch.setattr(queries, "CHUNK_BYTES", size)
            assert run(capsys, *words, f"--output={tmp_path / 'vectors.npy'}") == ""
            array = np.load(tmp_path / "vectors.npy")
            assert array.dtype == np.float32
            np.testing.assert_allclose(array, expected, atol=1e-5)


def test_answers_go_into_a_table(mnli, stsb, tmp_path, capsys):
    (tmp_path / "pairs").write_text("the file\ta table\nthe\ta  run\n")
    for checkpoint in (mnli, stsb):
        words = [f"--checkpoint={checkpoint}", f"--file={tmp_path / 'pairs'}"]
        expected = records(capsys, *words)
        assert run(capsys, *words, f"--output={tmp_path / 'out.tsv'}") == ""
        header, *rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
        for row, record in zip(rows, expected, strict=True):
            values = dict(zip(header, row, strict=True))
            assert values["second_text"] == " ".join(record["second_text"].split())
            assert values["truncated"] == "false"
            if checkpoint == stsb:
                assert float(values["score"]) == pytest.approx(record["score"])
            else:
                assert values["label"] == record["label"]
                assert float(values["p(neutral)"]) == pytest.approx(record["probabilities"]["neutral"])
        assert run(capsys, *words, f"--output={tmp_path / 'out.jsonl'}") == ""
        written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [record["text"] for record in written] == ["the file", "the"]


def test_output_is_utf8_whatever_the_terminal(sst2, capsys, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    predict.main([f"--checkpoint={sst2}", "--text=caf\u00e9", "--json"])
    assert json.loads(output.buffer.getvalue().decode())["text"] == "caf\u00e9"


@pytest.mark.parametrize(
    ("words", "content", "said"),
    [
        ((), b"", "There is no text to answer"),
        ((), b"the file\n\nthe table\n", "standard input, line 2 is ''; expected a text"),
        ((), b"the file\na\tb\tc\n", r"standard input, line 2 is 'a\\tb\\tc'"),
        ((), b"the \xff file\n", "standard input, line 1 is no UTF-8"),
        ((), b"the file\ta table\n", r"line 1: a model for sst2 reads one text \(.*text_column\); got two"),
        (("--text=the", "--second_text=a"), b"", "--text: a model for sst2 reads one text .*; got two"),
        (("--text=the caf\udce9",), b"", r"--text is no UTF-8 text \('the caf\\udce9'\)"),
        (("--text=  ",), b"", "--text is blank"),
        (("--text=the", "--embed", "--fill_mask"), b"", "ask for two things"),
        (("--text=the", "--output=x.txt"), b"", r"ends in \.jsonl, \.tsv or \.npy"),
        (("--text=the", "--output=nowhere/x.tsv"), b"", "Cannot write nowhere/x.tsv: No such file"),
        (("--text=the", "--output=/dev/null/x.npy"), b"", "Cannot write"),
        (("--text=the", "--file=texts"), b"", "both name texts"),
        (("--second_text=the",), b"", "--second_text goes with --text"),
        (("--file=nowhere/texts",), b"", "Cannot read nowhere/texts: No such file"),
        (("--text=the", "--top=0"), b"", "--top=0 shows nothing"),
        (("--text=the [MASK]", "--fill_mask"), b"", "fine-tuned on sst2; a pre-trained one is needed"),
    ],
)
def test_bad_input_of_a_classifier_is_named(sst2, monkeypatch, words, content, said):
    stdin(monkeypatch, content)
    with pytest.raises(UserError, match=said):
        predict.main([f"--checkpoint={sst2}", *words])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--text=the [MASK]",), "holds no fine-tuned model: run `eelbert finetune"),
        (
            ("--text=the file", "--fill_mask"),
            r"'the file' must have a \[MASK\] and at most 512 tokens; it has 0",
        ),
        (("--text=" + "[MASK] " * 600, "--fill_mask"), r"\.\.\.' must have .* it has 600 and 602"),
        (("--text=[MASK]", "--second_text=a", "--fill_mask"), "--fill_mask reads one text .*; got two"),
        (("--text=[MASK]", "--fill_mask", "--top=99"), "99 tokens a mask; take 1 to 16"),
    ],
)
def test_bad_input_of_a_mask_filler_is_named(pretrained, words, said):
    with pytest.raises(UserError, match=said):
        predict.main([f"--checkpoint={pretrained}", *words])


def test_pairs_are_asked_for(mnli):
    with pytest.raises(UserError, match=r"model for mnli reads two texts: .* a tab between them; got one"):
        predict.main([f"--checkpoint={mnli}", "--text=the file"])


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(UserError, match="add --checkpoint=DIR"):
        predict.main(["--text=the"])
    for more in ((), ("--fill_mask",)):
        with pytest.raises(UserError, match=f"No checkpoints at {tmp_path}"):
            predict.main([f"--checkpoint={tmp_path}", "--text=the", *more])


def test_files_that_do_not_suit_the_answers_are_named(sst2, tagger, tmp_path):
    for checkpoint, suffix, said in ((sst2, "npy", "is for --embed"), (tagger, "tsv", "is for labels")):
        with pytest.raises(UserError, match=said):
            predict.main([f"--checkpoint={checkpoint}", "--text=the", f"--output={tmp_path / 'x'}.{suffix}"])


@pytest.fixture
def glue(tmp_path, monkeypatch):
    """Make a GLUE folder of few test rows, and let the submission be as short."""
    for folder, header, rows in (
        ("SST-2", "index\tsentence", ["0\tthe file opens .", "1\ta table", "2\trunning"]),
        ("diagnostic", "index\tsentence1\tsentence2", ["0\tthe file\ta table", "1\ta file\tthe table"]),
    ):
        (tmp_path / "glue" / folder).mkdir(parents=True)
        name = "test.tsv" if folder == "SST-2" else "diagnostic.tsv"
        (tmp_path / "glue" / folder / name).write_text("\n".join([header, *rows]) + "\n")
    monkeypatch.setenv("EELBERT_DATA", str(tmp_path))
    monkeypatch.setattr(submission, "SUBMISSION_ROWS", {"SST-2.tsv": 3, "AX.tsv": 2})


def test_submission_holds_the_models_classes(sst2, mnli, glue, tmp_path, capsys):
    said = run(capsys, f"--checkpoint={sst2}", "--glue_split=test", f"--workdir={tmp_path / 'out'}")
    assert said.strip() == str(tmp_path / "out" / "SST-2.tsv")
    best = np.argmax(one_by_one(sst2, ["the file opens .", "a table", "running"]), axis=-1)
    lines = (tmp_path / "out" / "SST-2.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{i}\t{label}" for i, label in enumerate(best))]
    run(capsys, f"--checkpoint={mnli}", "--glue_split=ax", f"--workdir={tmp_path / 'out'}")
    best = np.argmax(one_by_one(mnli, ["the file", "a file"], ["a table", "the table"]), axis=-1)
    lines = (tmp_path / "out" / "AX.tsv").read_text().splitlines()
    assert lines[1:] == [f"{i}\t{NLI_LABELS[label]}" for i, label in enumerate(best)]


def test_submissions_that_cannot_be_are_refused(sst2, glue, tmp_path):
    save_finetuned(tmp_path / "other", "sst2", "classify", ("positive", "negative"))
    for checkpoint, words, said in (
        (sst2, ("--glue_split=dev", f"--workdir={tmp_path}"), "takes no predictions for sst2, 'dev'"),
        (sst2, ("--glue_split=test",), "goes with --workdir=DIR and no text"),
        (sst2, ("--glue_split=test", f"--workdir={tmp_path}", "--text=the"), "and no text"),
        (tmp_path / "other", ("--glue_split=test", f"--workdir={tmp_path}"), "in another order than the"),
    ):
        with pytest.raises(UserError, match=said):
            predict.main([f"--checkpoint={checkpoint}", *words])
