"""Sources of text: every format and compression, parts of large files, TFDS, documentation, bad input."""

import gzip
import json
import lzma
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.corpus import docstrings, streams
from eelbert_jax.corpus.docstrings import documentation
from eelbert_jax.corpus.documents import (
    CHUNK_CHARACTERS,
    MAX_PARAGRAPH_CHARACTERS,
    Chunk,
    ReadOptions,
    ReadTally,
    chunk_documents,
)
from eelbert_jax.corpus.files import find_file_units
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.corpus.sources import SourceOptions, find_units
from eelbert_jax.corpus.storage import find_files
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import prepare

DOCUMENTS = [["A first paragraph.", "A second, naïve one."], ["Another document: 東京."], ["Last.", "End"]]
TEXT = "\n\n".join("\n".join(paragraphs) for paragraphs in DOCUMENTS)
COMPRESSORS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(source, *, sizes=(1, 1 << 30), **options):
    """Return (documents as lists of lines, tally) of a source."""
    reading = ReadOptions(**{"on_bad_record": "refuse", **options})
    tally = ReadTally()
    documents: list[str] = []
    units = find_units(str(source), SourceOptions(min_unit_bytes=sizes[0], max_unit_bytes=sizes[1]), reading)
    for unit in units:
        for chunk in unit.read(reading, tally):
            if chunk.starts_document:
                documents.append("")
            documents[-1] += chunk.text
    assert tally.num_bytes == sum(unit.num_bytes for unit in units), "the progress does not end at the total"
    return [
        document.split("\n")[: document.count("\n") + (not document.endswith("\n"))] for document in documents
    ], tally


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


# Bad input


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


# Documentation


def test_documentation_of_a_module_is_its_docstrings_in_order(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        textwrap.dedent(
            '''
            """Module."""
            raise RuntimeError("this must not run")
            class A:
                """Class."""
                def method(self):
                    """Method,

                    indented.
                    """
            async def f():
                """Function."""
            '''
        )
        + f"def long():\n    '''{' '.join(['Long.'] * 50)}'''\n"
    )
    expected = ["Module.", "Class.", "Method,", "", "indented.", "Function.", " ".join(["Long."] * 50)]
    assert documentation(path).split("\n") == expected


@pytest.mark.parametrize("content", ["'''Short.'''", "this is no Python(", "x = '\0'", ""])
def test_modules_without_running_text_have_no_documentation(tmp_path, content):
    (tmp_path / "module.py").write_text(content)
    assert documentation(tmp_path / "module.py") == ""


def test_documentation_of_this_machine_is_found_in_a_fixed_order():
    options = SourceOptions(docs_bytes=2 << 20, min_unit_bytes=1 << 19)
    units = find_units("docs", options, ReadOptions())
    assert [unit.describe() for unit in units] == [
        unit.describe() for unit in find_units("docs", options, ReadOptions())
    ]
    paths = [path for unit in units for path, _ in unit.describe()["files"]]
    assert paths == sorted(paths), "the standard library alone fills this limit"
    assert sum(unit.num_bytes for unit in units) <= 2 << 20
    text = "".join(chunk.text for unit in units for chunk in unit.read(ReadOptions(), ReadTally()))
    assert "Heap queue" in text or "abstract base class" in text.lower()


def test_packages_on_this_machine_have_their_descriptions():
    files = [path for _, path, _ in docstrings._installed_files()]
    assert any(path.startswith("numpy-") and path.endswith("METADATA") for path in files)
    assert any(path.startswith("numpy/") for path in files)
    assert not any("/tests/" in path for path in files)


def test_too_small_a_limit_of_documentation_is_refused():
    with pytest.raises(UserError, match="max_mib"):
        find_units("docs", SourceOptions(docs_bytes=1), ReadOptions())


# TFDS

BUILDER = '''
import sys
import numpy as np
import tensorflow_datasets as tfds

class LocalText(tfds.core.GeneratorBasedBuilder):
    """A few documents."""
    VERSION = tfds.core.Version("1.0.0")
    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"body": tfds.features.Text(), "number": np.int64}),
        )
    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(40), "test": self._generate_examples(3)}
    def _generate_examples(self, count):
        for number in range(count):
            yield number, {"body": f"Document {number}.\\nIts naïve second line.", "number": number}

LocalText(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
'''


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A TFDS dataset, built by a process of its own, so that ours knows it by its name and files alone."""
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "build.py").write_text(BUILDER)
    subprocess.run([sys.executable, folder / "build.py", folder / "data"], check=True, capture_output=True)
    return folder / "data"


def tfds_options(folder: Path, split: str = "train", units: int = 1) -> SourceOptions:
    return SourceOptions(
        tfds_data_dir=str(folder),
        tfds_split=split,
        tfds_download=False,
        min_unit_bytes=1000,
        max_unit_bytes=1000,
    )


def read_tfds(name, options, **reading):
    read_options = ReadOptions(**reading)
    units = find_units(name, options, read_options)
    tallies = [ReadTally() for _ in units]
    chunks = [list(unit.read(read_options, tally)) for unit, tally in zip(units, tallies, strict=True)]
    assert [tally.num_bytes for tally in tallies] == [unit.num_bytes for unit in units]
    return units, chunks


def test_tfds_dataset_by_name_is_a_document_an_example(tfds_folder):
    units, chunks = read_tfds("local_text", tfds_options(tfds_folder))
    assert len(units) > 1
    texts = [chunk.text for unit in chunks for chunk in unit]
    assert all(chunk.starts_document for unit in chunks for chunk in unit)
    assert sorted(texts) == sorted(f"Document {n}.\nIts naïve second line.\n" for n in range(40))
    assert units[0].describe()["dataset"] == "local_text/1.0.0"
    _, part = read_tfds("local_text:1.0.0", tfds_options(tfds_folder, "train[:25%]"))
    assert [chunk.text for unit in part for chunk in unit] == texts[:10]


def test_tfds_does_not_import_tensorflow(tfds_folder):
    code = (
        "import sys; from eelbert_jax.corpus.sources import *; from eelbert_jax.corpus.documents import *; "
        f"find_units('local_text', SourceOptions(tfds_data_dir={str(tfds_folder)!r}), ReadOptions()); "
        "print('tensorflow_datasets' in sys.modules, 'tensorflow' in sys.modules, 'jax' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["True", "False", "False"]


@pytest.mark.parametrize(
    ("name", "split", "field", "message"),
    [
        ("no_such_dataset", "train", "", "No file matches 'no_such_dataset', and TFDS has no such dataset"),
        ("lm1b", "train", "", "not prepared in .*tfds.download"),
        ("local_text", "validation", "", "no split 'validation'; it has test, train"),
        ("local_text", "train", "title", "string features are body.*text_field"),
    ],
)
def test_tfds_errors_say_what_there_is(tfds_folder, name, split, field, message):
    with pytest.raises(UserError, match=message):
        read_tfds(name, tfds_options(tfds_folder, split), text_field=field)


def test_tfds_dataset_that_cannot_be_fetched_says_what_to_do(tfds_folder, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(builder):
        raise ModuleNotFoundError("No module named 'apache_beam'")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    options = SourceOptions(tfds_data_dir=str(tfds_folder))
    with pytest.raises(UserError, match=r"could not fetch wiki40b/en .*apache_beam.*tfds build.*data_dir"):
        find_units("wiki40b/en", options, ReadOptions())


@pytest.mark.slow
def test_tfds_name_goes_straight_into_the_job(tfds_folder, tmp_path):
    """The workers find the dataset again by its name."""
    prepare.main(
        [
            "--config.source=local_text",
            f"--config.tfds.data_dir={tfds_folder}",
            "--config.train_vocabulary.size=100",
            "--config.row_length=8",
            "--config.held_out.fraction=0.2",
            "--config.unit_mib.min=0.001",
            "--config.workers=2",
            f"--workdir={tmp_path / 'rows'}",
        ]
    )
    splits = [Rows.open(tmp_path / "rows", split) for split in ("train", "heldout")]
    assert len(splits[0].manifest["splits"]["train"]["shards"]) > 1
    assert sum(split["num_documents"] for split in splits[0].manifest["splits"].values()) == 40
    text = " ".join(splits[0].decode(splits[0][np.arange(len(splits[0]))]))
    assert "its naive second line" in text
