"""Prediction: the model's own answers, in the order of the lines, as text, JSON, a table or an array."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.inference import queries
from eelbert_jax.inference.load import load
from eelbert_jax.jobs import predict
from support.models import NLI_LABELS, softmax
from support.predictions import one_by_one, records, run, stdin

TEXTS = [
    "the file opens .",
    "a table " * 30,
    "a runner runs .",
    "the table opens .",
    "the run " * 23 + "a file . " * 9,
]


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


def test_output_is_utf8_whatever_the_terminal(sst2, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", output)
    predict.main([f"--checkpoint={sst2}", "--text=caf\u00e9", "--json"])
    assert json.loads(output.buffer.getvalue().decode())["text"] == "caf\u00e9"
