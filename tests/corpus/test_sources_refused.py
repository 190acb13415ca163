"""Sources of text that are damaged, missing or not what they should be: named, skipped or replaced."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from eelbert_jax.corpus.documents import ReadOptions, ReadTally
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.errors import UserError
from support.sources import COMPRESSORS, read


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["truncated", "corrupt", "other"])
def test_damaged_compressed_files_are_named(tmp_path, suffix, damage):
    content = random.Random(0).randbytes(50_000).hex().encode()
    if suffix == ".zst":
        data = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    else:
        data = COMPRESSORS[suffix](content)
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "corrupt":
        data = data[: len(data) // 2] + bytes(100) + data[len(data) // 2 + 100 :]
    else:
        data = b"no compressed data at all"
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(data)
    expected = "end too early" if damage == "truncated" else "corrupt compressed data"
    with pytest.raises(UserError, match=rf"a\.txt\{suffix}: .*{expected}.*[Ff]etch or compress it again"):
        read(path)


@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_invalid_utf8_is_named_by_file_line_and_byte(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix](b"good\n\nbad: \xff\n"))
    with pytest.raises(UserError, match=r"a\.txt.*, line 3, byte 6 of the line: invalid UTF-8, byte 0xff"):
        read(path)


def test_lines_are_counted_from_the_beginning_of_the_file_in_every_part(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\n" * 100 + b"\xc3(\n")
    with pytest.raises(UserError, match=r"line 201, byte 1 of the line"):
        read(path, sizes=(1, 50))


def test_invalid_utf8_can_be_replaced_and_is_counted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a \ufffd b".encode() + b" \xff c \xe2\x82 d\n")
    documents, tally = read(path, on_invalid_utf8="replace")
    assert documents == [["a \ufffd b \ufffd c \ufffd d"]]
    assert tally.num_replaced == 2


def test_half_a_surrogate_pair_in_json_is_invalid_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good \\ud83d\\ude00"}\n{"text": "bad \\ud83d"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: invalid UTF-8"):
        read(path)
    assert read(path, on_invalid_utf8="replace")[1].num_replaced > 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"title": "x"}', "text field 'text', got fields title.*--config.text_field"),
        ('{"text": 3}', "text field 'text'"),
        ('["text"]', "got a list"),
        ('{"text": "x"', "not valid JSON"),
    ],
)
def test_jsonl_without_the_text_names_the_line(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 3: .*" + message):
        read(path)


BAD_LINES = [
    b'{"text": null}',
    b'{"title": "no text"}',
    b"no JSON",
    b"[" * 5000 + b"]" * 5000,
    b'{"text": "\xff"}',
    b'{"text": "half a pair: \\ud83d"}',
]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_bad_record_is_skipped_counted_and_its_place_said(tmp_path, bad):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n\n' + bad + b'\n{"text": "two"}\n' + bad + b"\n")
    documents, tally = read(path, on_bad_record="skip")
    assert documents == [["one"], ["two"]]
    assert (tally.num_bad, tally.num_records) == (2, 4)
    assert tally.first_bad.startswith(f"{path}, line 3")
    with pytest.raises(UserError, match=r"a\.jsonl, line 3.*--config\.on_bad_record=skip"):
        read(path)


def test_a_line_that_is_no_utf8_is_skipped_and_ends_no_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\n" * 9 + b"two\ncaf\xe9\nthree\n\ncaf\xe9\n")
    for sizes in ((1, 1 << 30), (1, 20)):
        documents, tally = read(path, sizes=sizes, on_bad_record="skip")
        assert documents == [["one"]] * 9 + [["two", "three"]]
        assert tally.num_bad == 2
        assert "a.txt, line 20, byte 4 of the line: invalid UTF-8" in tally.first_bad


def test_numbers_of_any_length_are_no_matter(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": ' + "9" * 6000 + ', "text": "one", "x": -1e999}')
    assert read(tmp_path / "a.jsonl")[0] == [["one"]]


def test_a_null_in_a_parquet_file_is_skipped(tmp_path):
    pq.write_table(pa.table({"text": ["one", None, "two", None]}), tmp_path / "a.parquet")
    documents, tally = read(tmp_path / "a.parquet", on_bad_record="skip")
    assert documents == [["one"], ["two"]]
    assert (tally.num_bad, tally.num_records) == (2, 4)
    assert tally.first_bad == f"{tmp_path}/a.parquet, row 1, column 'text': the text is null. Remove the row."


def test_parquet_without_the_text_is_refused(tmp_path):
    pq.write_table(
        pa.table({"title": ["x"], "number": [1], "gap": pa.array([None], pa.string())}),
        tmp_path / "a.parquet",
    )
    with pytest.raises(UserError, match=r"no column 'text'; it has title, number, gap"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"column 'number'"):
        read(tmp_path / "a.parquet", text_field="number")
    with pytest.raises(UserError, match=r"row 0, column 'gap': the text is null"):
        read(tmp_path / "a.parquet", text_field="gap")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"b\.parquet: not a readable parquet file"):
        read(tmp_path / "b.parquet")


def test_missing_and_empty_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"No file matches .*none\*\.txt"):
        read(tmp_path / "none*.txt")
    with pytest.raises(UserError, match=r"is a folder.*\*\.txt"):
        read(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt is empty"):
        read(tmp_path / "a.txt")


def test_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("text\n")
    assert read("~/*.txt")[0] == [["text"]]


def test_file_that_vanishes_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text\n")
    (unit,) = find_units(str(path), SourceOptions(), ReadOptions())
    path.unlink()
    with pytest.raises(UserError, match=r"Cannot read .*a\.txt: No such file"):
        list(unit.read(ReadOptions(), ReadTally()))


@pytest.mark.parametrize("sizes", [(0, 10), (11, 10)])
def test_impossible_unit_sizes_are_refused(sizes):
    with pytest.raises(UserError, match="unit_mib"):
        SourceOptions(min_unit_bytes=sizes[0], max_unit_bytes=sizes[1])
