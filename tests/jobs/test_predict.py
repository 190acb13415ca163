"""Prediction: the model's own answers, in the order of the lines, from any source, and clear errors."""

import io
import json
import sys

import numpy as np
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.datasets import submission
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs import predict
from support.models import NLI_LABELS, logits_alone, save_finetuned, save_pretrained, softmax

TEXTS = ["the file opens .", "a table " * 30, "a runner runs .", "the table opens .", "the run " * 40]


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
    expected = softmax(one_by_one(sst2, plain))
    for record, shares in zip(at_once, expected, strict=True):
        # Padding adds masked zeros to float32 sums of a few hundred products: the last bits move.
        assert list(record["probabilities"].values()) == pytest.approx(shares.tolist(), abs=1e-5)
        assert record["label"] == ["negative", "positive"][int(np.argmax(shares))]
        assert record["probability"] == max(record["probabilities"].values())
    assert len({record["probability"] for record in at_once}) > 3
    monkeypatch.setattr(predict, "LINES_AT_ONCE", 2)
    for few, many in zip(records(capsys, *words), at_once, strict=True):
        assert few["text"] == many["text"]
        assert few["probability"] == pytest.approx(many["probability"], abs=1e-5)


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


def test_many_lines_are_never_all_in_memory(sst2, monkeypatch):
    """The reader is asked for at most one line more than was answered and is being answered."""
    read = 0

    class Lines(io.RawIOBase):
        def __iter__(self):
            nonlocal read
            for read in range(1, 10_000):  # noqa: B007
                yield b"the file opens .\n"

    texts = predict.queries("", "", "", Lines())
    lines = predict.answer(load(sst2), texts, fill_mask=False, top=1, as_json=False, at_once=8)
    assert len(next(lines)) == 8
    assert read == 8
    next(lines)
    assert read == 16


@pytest.mark.parametrize(
    ("words", "content", "said"),
    [
        ((), b"", "There is no text to answer"),
        ((), b"the file\n\nthe table\n", "standard input, line 2 is ''; expected a text"),
        ((), b"the file\na\tb\tc\n", r"standard input, line 2 is 'a\\tb\\tc'"),
        ((), b"the \xff file\n", "standard input, line 1 is no UTF-8"),
        ((), b"the file\ta table\n", "line 1: a model for sst2 reads one text; got two"),
        (("--text=the", "--second_text=a"), b"", "--text: a model for sst2 reads one text; got two"),
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
        (("--text=[MASK]", "--second_text=a", "--fill_mask"), "--fill_mask reads one text; got two"),
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


def test_answers_come_up_to_the_bad_line(sst2, monkeypatch, capsys):
    monkeypatch.setattr(predict, "LINES_AT_ONCE", 1)
    stdin(monkeypatch, b"the file\nthe table\n\n")
    assert main(["predict", f"--checkpoint={sst2}"]) == 2
    said = capsys.readouterr()
    assert [line.split("\t")[2] for line in said.out.splitlines()] == ["the file", "the table"]
    assert "line 3" in said.err


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
