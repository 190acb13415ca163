"""A folder searched by meaning: passages, what is read again and what is not, refusals."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.inference.search import LONG, SHORT, passages, search, update
from eelbert_jax.jobs.search import main
from eelbert_jax.workdir import INDEX_NAME
from support.models import save_pretrained


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load(save_pretrained(tmp_path_factory.mktemp("model")))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    filler = "the table . " * (SHORT // 12 + 1)
    (tmp_path / "one.txt").write_text(f"{filler}\n\n\nthe runner run .\n")
    (tmp_path / "deep" / "two.md").write_text("a file opens .")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / ".hidden").write_text("running")
    return tmp_path


def test_the_passage_that_says_it_comes_first_with_its_place(model, folder):
    hits = search(model, folder, "a file opens .", top=3)
    assert [hit.text for hit in hits[:1]] == ["a file opens ."]
    assert hits[0].score == pytest.approx(1, abs=2e-3)
    assert {(hit.path, hit.line) for hit in hits} == {("deep/two.md", 1), ("one.txt", 1), ("one.txt", 4)}
    vectors = model.encode([hit.text for hit in hits]) / 1.0
    query = model.encode(["a file opens ."])[0]
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    assert [hit.score for hit in hits] == pytest.approx(cosines.tolist(), abs=2e-3)


def test_only_what_changed_is_read_again(model, folder, monkeypatch):
    read = []
    encode = type(model).encode
    monkeypatch.setattr(type(model), "encode", lambda self, texts: read.extend(texts) or encode(self, texts))
    first = update(model, folder)
    read.clear()
    (folder / "deep" / "two.md").write_text("running .")
    os.remove(folder / "one.txt")
    second = update(model, folder)
    assert read == ["running ."]
    assert len(first.vectors) == 3
    assert list(second.files) == ["picture.png", "deep/two.md"]
    assert len(second.vectors) == len(second.spans) == 1
    read.clear()
    update(model, folder)
    assert read == []


def test_a_damaged_index_and_one_of_another_model_are_made_again(model, folder, tmp_path_factory):
    before = update(model, folder)
    (folder / INDEX_NAME).write_bytes(b"damaged")
    np.testing.assert_array_equal(update(model, folder).vectors, before.vectors)
    other = load(save_pretrained(tmp_path_factory.mktemp("other"), num_layers=2))
    assert not np.array_equal(update(other, folder).vectors, before.vectors)


def test_a_file_that_cannot_be_read_is_left_out_and_told(model, folder, monkeypatch, capsys):
    read_bytes = Path.read_bytes

    def refused(path):
        if path.name == "two.md":
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        assert {hit.path for hit in search(model, folder, "a file opens .")} == {"one.txt"}
    assert "two.md is left out: Permission denied." in capsys.readouterr().err
    assert "deep/two.md" in {hit.path for hit in search(model, folder, "a file opens .")}


def test_an_interrupted_reading_keeps_what_was_read(model, folder, monkeypatch):
    def interrupted(self, texts):
        if texts == ["a file opens ."]:
            raise KeyboardInterrupt
        return encode(self, texts)

    encode = type(model).encode
    monkeypatch.setattr(type(model), "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(model, folder)
    read = []
    monkeypatch.setattr(type(model), "encode", lambda self, texts: read.extend(texts) or encode(self, texts))
    update(model, folder)
    assert read == ["a file opens ."]


@given(st.text(alphabet=st.sampled_from("a é.\n😀"), max_size=4000))
def test_passages_are_the_text_in_order_and_never_too_long(text):
    data = text.encode()
    spans = list(passages(data))
    assert b"".join(data[start:end] for start, end in spans).split() == data.split()
    for start, end in spans:
        assert 0 < end - start <= LONG + 3
        data[start:end].decode()  # cuts no character
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize(
    ("query", "place", "top", "message"),
    [
        ("", "", 1, "nothing to search for"),
        ("a", "absent", 1, "no folder"),
        ("a", "empty", 1, "no text in"),
        ("a", "", 0, "--top=0 shows nothing"),
    ],
)
def test_refusals(query, place, top, message, model, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        search(model, tmp_path / place, query, top)


def test_words_of_the_command_line_are_the_query(folder, tmp_path_factory, capsys):
    run = save_pretrained(tmp_path_factory.mktemp("run"))
    main([f"--in={folder}", "a", "file", "opens .", f"--from={run}", "--top=1"])
    assert capsys.readouterr().out == "1.000  deep/two.md:1  a file opens .\n"
