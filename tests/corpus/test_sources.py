"""Sources of text: every format and compression, within bounds of memory, and parts of large files."""

import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.corpus import streams
from eelbert_jax.corpus.documents import (
    CHUNK_CHARACTERS,
    MAX_PARAGRAPH_CHARACTERS,
    Chunk,
    ReadOptions,
    ReadTally,
    chunk_documents,
)
from eelbert_jax.corpus.files import find_file_units
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.corpus.storage import find_files
from eelbert_jax.errors import UserError
from support.sources import COMPRESSORS, DOCUMENTS, TEXT, read

# Formats


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_txt_is_paragraphs_and_blank_lines(tmp_path, suffix):
    path = tmp_path / f"corpus.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](TEXT.encode()))
    assert read(path)[0] == DOCUMENTS


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_jsonl_is_a_document_a_line(tmp_path, suffix):
    lines = [json.dumps({"id": 1, "body": "\n".join(paragraphs)}) for paragraphs in DOCUMENTS]
    path = tmp_path / f"corpus.jsonl{suffix}"
    path.write_bytes(COMPRESSORS[suffix]("\n".join(lines).encode()))
    assert read(path, text_field="body")[0] == DOCUMENTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_is_a_document_a_row(tmp_path, kind):
    texts = pa.array(["\n".join(paragraphs) for paragraphs in DOCUMENTS]).cast(kind)
    pq.write_table(pa.table({"id": [1, 2, 3], "text": texts}), tmp_path / "corpus.parquet")
    assert read(tmp_path / "corpus.parquet")[0] == DOCUMENTS


def test_blank_lines_inside_a_record_are_no_boundary(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one\n\n \ntwo"}))
    assert read(tmp_path / "a.jsonl")[0] == [["one", "two"]]


def test_windows_line_ends_blank_runs_and_byte_order_mark(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\n \r\none\r\ntwo\r\n\r\n\t\r\n\r\nthree\r\n")
    assert read(path)[0] == [["one", "two"], ["three"]]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_all_members_of_a_compressed_file_are_read(tmp_path, suffix):
    compress = COMPRESSORS[suffix]
    (tmp_path / f"a.txt{suffix}").write_bytes(compress(b"one\n\n") + compress(b"two\n"))
    assert read(tmp_path / f"a.txt{suffix}")[0] == [["one"], ["two"]]


def test_the_end_of_a_file_ends_a_document_and_small_files_share_a_unit(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"text {number}\n")
    assert read(tmp_path / "*.txt")[0] == [[f"text {number}"] for number in range(5)]
    options = SourceOptions(min_unit_bytes=14, max_unit_bytes=1 << 20)
    units = find_units(str(tmp_path / "*.txt"), options, ReadOptions())
    assert [len(unit.describe()["files"]) for unit in units] == [2, 2, 1]


@pytest.mark.parametrize(
    "name", ["A.TXT", "a.Txt.GZ", "notes [draft].txt", "[a]/*.txt", "b*.txt", "caf\udce9.txt"]
)
def test_names_as_people_give_them_are_understood(tmp_path, name):
    path = tmp_path / name.replace("*", "x")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(b"text\n") if "GZ" in name else b"text\n")
    assert read(tmp_path / name)[0] == [["text"]]
    assert read(f"{tmp_path}/**/*.[tT]*")[0] == [["text"]]


def test_a_bracket_is_a_set_of_characters_first(tmp_path):
    for name in ("1.txt", "2.txt", "3.txt", "[12].txt"):
        (tmp_path / name).write_text(f"{name}\n")
    assert read(f"{tmp_path}/[12].*")[0] == [["1.txt"], ["2.txt"]]
    assert read(f"{tmp_path}/[12].txt")[0] == [["[12].txt"]], "there is a file of that very name"


def test_zstandard_with_a_long_window_is_read(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=29)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.txt.zst").write_bytes(compressor.compress(b"text\n") + compressor.flush())
    assert read(tmp_path / "a.txt.zst")[0] == [["text"]]


def test_format_can_be_said_where_the_name_does_not(tmp_path):
    (tmp_path / "wiki_00").write_text("one\n")
    with pytest.raises(UserError, match=r"wiki_00: cannot tell the format.*--config\.file_format"):
        read(tmp_path / "wiki_00")
    assert read(tmp_path / "wiki_00", file_format="txt")[0] == [["one"]]
    with pytest.raises(UserError, match="file_format='csv' is not one of auto, txt, jsonl, parquet"):
        read(tmp_path / "wiki_00", file_format="csv")


# Memory


def test_chunks_are_bounded_and_lossless():
    lines = [f"{number} " * 300 + "\n" for number in range(50)]
    chunks = list(chunk_documents([*lines, "\n", "short\n"]))
    assert [chunk.starts_document for chunk in chunks].count(True) == 2
    assert "".join(chunk.text for chunk in chunks[:-1]) == "".join(lines)
    assert chunks[-1] == Chunk("short\n", True)
    longest = max(map(len, lines))
    assert all(CHUNK_CHARACTERS <= len(chunk.text) < CHUNK_CHARACTERS + longest for chunk in chunks[:-2])


def test_a_line_without_end_is_cut_at_spaces(tmp_path):
    words = [f"wörd{number}" for number in range(300_000)]
    (tmp_path / "a.txt").write_text(" ".join(words), encoding="utf-8")
    (unit,) = find_units(str(tmp_path / "a.txt"), SourceOptions(), ReadOptions())
    chunks = list(unit.read(ReadOptions(), ReadTally()))
    assert len(chunks) > 1
    assert max(len(chunk.text) for chunk in chunks) <= 2 << 20
    assert [chunk.starts_document for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert [word for chunk in chunks for word in chunk.text.split()] == words


def test_a_record_without_line_ends_is_cut_at_spaces(tmp_path):
    words = [f"wörd{number}" for number in range(100_000)]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": " ".join(words)}) + '\n{"text": "next"}')
    (unit,) = find_units(str(tmp_path / "a.jsonl"), SourceOptions(), ReadOptions())
    *chunks, last = unit.read(ReadOptions(), ReadTally())
    assert len(chunks) > 2
    assert max(len(chunk.text) for chunk in chunks) <= MAX_PARAGRAPH_CHARACTERS
    assert [chunk.starts_document for chunk in chunks] == [True] + [False] * (len(chunks) - 1)
    assert [word for chunk in chunks for word in chunk.text.split()] == words
    assert last == Chunk("next\n", True)


def test_a_line_without_spaces_is_cut_between_characters(tmp_path):
    (tmp_path / "a.txt").write_text("東" * 1_000_000, encoding="utf-8")
    documents, tally = read(tmp_path / "a.txt")
    assert "".join(documents[0]) == "東" * 1_000_000
    assert tally.num_replaced == 0


# Parts of large files


@given(data=st.data())
@settings(max_examples=60)
def test_parts_of_a_file_have_each_document_once(tmp_path_factory, data):
    """However a file is cut, its parts hold the documents of the whole, in order."""
    path = tmp_path_factory.getbasetemp() / "parts.txt"
    line = st.sampled_from(
        ["", " ", "a", "bb", "a longer line", "é" * 9, "\r", "a\rb", "c\r", "\r\r", "d\r\r"]
    )
    path.write_text("\n".join(data.draw(st.lists(line, max_size=30))) + "x", encoding="utf-8", newline="")
    size = data.draw(st.integers(1, 40))
    assert read(path, sizes=(1, size))[0] == read(path)[0]


@given(data=st.data())
@settings(max_examples=40)
def test_parts_of_jsonl_have_each_record_once(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "parts.jsonl"
    texts = data.draw(st.lists(st.text("abé ", min_size=1).filter(str.strip), min_size=1, max_size=20))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    size = data.draw(st.integers(1, 60))
    assert read(path, sizes=(1, size))[0] == [[text] for text in texts]


def test_a_document_without_end_is_cut_so_that_the_work_can_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "BOUNDARY_BYTES", 100)
    lines = [f"line {number}" for number in range(200)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    documents, _ = read(tmp_path / "a.txt", sizes=(1, 500))
    assert [line for document in documents for line in document] == lines
    assert 3 <= len(documents) <= 5


def test_compressed_files_are_not_cut(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(random.Random(0).randbytes(5000).hex().encode()))
    assert len(list(find_file_units(find_files(str(path)), 1, 100, ReadOptions()))) == 1
