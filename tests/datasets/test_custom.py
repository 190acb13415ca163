import os
import re
from pathlib import Path

import pytest

from eelbert_jax.datasets.custom import custom_task
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.errors import UserError

CSV = 'text,kind\n"a, and ""b""",good\nplain,bad\n"over\ntwo lines",good\n'
JSONL = r"""{"text": "a, and \"b\"", "kind": "good"}
{"text": "plain", "kind": "bad"}

{"text": "over\ntwo lines", "kind": "good"}
"""


@pytest.mark.parametrize(("suffix", "content"), [("csv", CSV), ("jsonl", JSONL)])
def test_csv_and_jsonl_go_through_the_same_door(suffix, content, tmp_path):
    path = tmp_path / f"train.{suffix}"
    path.write_text(content)
    task = custom_task({"train": str(path), "dev": str(path)}, ["text"], "kind")
    assert task.labels == ("bad", "good")
    assert task.metrics == ("accuracy", "f1")
    examples = load_examples(task, "dev", glue_dir="ignored")
    assert examples.first == ('a, and "b"', "plain", "over\ntwo lines")
    assert examples.second is None
    assert examples.labels.tolist() == [1, 0, 1]


def test_a_pair_task_with_numbers_and_a_test_file_without_labels(tmp_path):
    (tmp_path / "train.tsv").write_text("a\tb\t0.5\nc\td\t-2\n")
    (tmp_path / "test.tsv").write_text("e\tf\n")
    task = custom_task(
        {"train": str(tmp_path / "train.tsv"), "test": str(tmp_path / "test.tsv")},
        ["left", "right"],
        "score",
        regression=True,
        columns=["left", "right", "score"],
        dev_every=2,
    )
    assert task.metrics == ("pearson", "spearman")
    assert load_examples(task, "train", glue_dir=None).labels.tolist() == [-2.0]
    assert load_examples(task, "dev", glue_dir=None).second == ("b",)
    assert load_examples(task, "test", glue_dir=None).labels is None


@pytest.mark.parametrize("spelling", [("0", "1"), ("Ham", "Spam"), ("ham.", "spam.")])
def test_labels_are_exact_names(spelling, tmp_path):
    """Sorted names need not be in the order of another program's numbers."""
    (tmp_path / "train.tsv").write_text("text\tkind\nhello\tham\nbuy now\tspam\n")
    (tmp_path / "dev.tsv").write_text(f"text\tkind\nhi\t{spelling[0]}\nbuy\t{spelling[1]}\n")
    files = {split: str(tmp_path / f"{split}.tsv") for split in ("train", "dev")}
    task = custom_task(files, ["text"], "kind")
    assert load_examples(task, "train", glue_dir=None).labels.tolist() == [0, 1]
    with pytest.raises(UserError, match=r"dev.tsv, line 2: .* expected one of ham, spam.*custom.labels"):
        load_examples(task, "dev", glue_dir=None)


def test_names_may_have_a_space_after_the_comma(tmp_path):
    (tmp_path / "train.tsv").write_text("1\tone\tneg\n2\ttwo\tpos \n")
    task = custom_task(
        {"train": str(tmp_path / "train.tsv")},
        ["text"],
        "kind",
        labels=["pos", " neg"],
        columns=["id", " text", " kind"],
        dev_every=2,
    )
    assert task.labels == ("pos", "neg")
    assert load_examples(task, "train", glue_dir=None).labels.tolist() == [0]
    assert load_examples(task, "dev", glue_dir=None).labels.tolist() == [1]


def test_a_tilde_brackets_and_names_that_are_no_utf8(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("~/train [final].TSV", os.fsdecode(b"~/caf\xe9.tsv")):
        Path(name).expanduser().write_text("text\tkind\na\tx\nb\ty\n")
        task = custom_task({"train": name, "dev": name}, ["text"], "kind")
        assert load_examples(task, "dev", glue_dir=None).first == ("a", "b")


def test_a_number_that_is_none_is_refused_or_left_out(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"t": "a", "score": 1}\n{"t": "b", "score": NaN}\n{"t": "c", "score": "x"}\n'
    )
    file = str(tmp_path / "train.jsonl")
    task = custom_task({"train": file, "dev": file}, ["t"], "score", regression=True)
    with pytest.raises(UserError, match="line 2: 'score' is missing"):
        load_examples(task, "train", glue_dir=None)
    kept = load_examples(task, "train", glue_dir=None, on_bad_record="skip")
    assert (kept.labels.tolist(), kept.tally.bad_records) == ([1.0], 2)


def test_numbers_as_names_are_names(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text("".join(f'{{"text": "t", "stars": {stars}}}\n' for stars in (5, 1, 3)))
    task = custom_task({"train": str(path)}, ["text"], "stars", dev_every=3)
    assert load_examples(task, "train", glue_dir=None).labels.tolist() == [0, 1]
    path.write_text(path.read_text() + '{"text": "t", "stars": 0}\n{"text": "t", "stars": 2}\n')
    with pytest.raises(UserError, match="'2' is no label"):
        load_examples(task, "train", glue_dir=None)


def test_null_is_a_missing_field(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"text": "a", "kind": "x"}\n{"text": null, "kind": "y"}\n{"text": "c", "kind": "x"}\n')
    task = custom_task({"train": str(path), "dev": str(path)}, ["text"], "kind")
    for split in ("train", "dev"):
        with pytest.raises(UserError, match="line 2: 'text' is missing"):
            load_examples(task, split, glue_dir=None)
        kept = load_examples(task, split, glue_dir=None, on_bad_record="skip")
        assert kept.first == ("a", "c")
        assert kept.ids.tolist() == [0, 2]
        assert kept.tally.bad_records == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(files={"dev": "x.csv"}), "expected train, dev"),
        (dict(files={"train": "x.csv", "validation": "x.csv"}), "expected train, dev"),
        (dict(files={"train": "x.csv"}), "needs a dev split"),
        (dict(dev_every=1), "needs a dev split"),
        (dict(files={"train": "x.csv", "dev": "x.csv"}, dev_every=5), "needs a dev split"),
        (dict(text_columns=[]), "one or two text columns"),
        (dict(text_columns=["a", "b", "c"]), "one or two text columns"),
        (dict(label_column=""), "one or two text columns"),
        (dict(labels=["a", "b"], regression=True), "no class names"),
        (dict(labels=["a"]), "two or more different labels"),
        (dict(files={"train": "x.xlsx"}, dev_every=2), "cannot tell the format"),
        (dict(label_column="nowhere"), "no column 'nowhere'; its columns are 'text', 'kind'"),
        (dict(on_bad_record="drop"), "'drop' is not one of refuse, skip"),
        (dict(label_column="text"), "has 0 distinct labels"),
        (dict(files={"train": "missing.csv"}), "Cannot read"),
    ],
)
def test_a_custom_task_that_cannot_be_is_refused(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("text,kind\n ,good\n ,bad\n")
    options = dict(files={"train": "x.csv"}, text_columns=["text"], label_column="kind", dev_every=2)
    if "dev_every" not in changes and "files" in changes and message != "Cannot read":
        options["dev_every"] = 0
    with pytest.raises(UserError, match=re.escape(message)):
        custom_task(**(options | changes))
