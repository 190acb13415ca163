import gzip
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from eelbert_jax.datasets import tables
from eelbert_jax.datasets.tables import Tally, read_rows
from eelbert_jax.errors import UserError

TABLE = "text\tkind\nnaïve\tgood\nplain\tbad\n"
ROWS = [{"text": "naïve", "kind": "good"}, {"text": "plain", "kind": "bad"}]


def rows_of(path, tally=None, columns=()):
    tally = tally or Tally()
    return [row.fields for row in read_rows(str(path), columns, ("text", "kind"), tally)]


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst", ".GZ"])
def test_compressed_tables(suffix, tmp_path):
    compress = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}[suffix.lower()]
    path = tmp_path / f"train.TSV{suffix}"
    path.write_bytes(compress(TABLE.encode()))
    assert rows_of(path) == ROWS
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="end too early"):
        rows_of(path)


def test_zstandard_with_a_long_window(tmp_path):
    """Of a size that the header does not tell, so that the window counts; the library's limit is 2^27."""
    long = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28)
    ).compressobj()
    (tmp_path / "train.tsv.zst").write_bytes(long.compress(TABLE.encode()) + long.flush())
    assert rows_of(tmp_path / "train.tsv.zst") == ROWS


def test_parquet(tmp_path):
    path = tmp_path / "train.parquet"
    columns = {"text": ["naïve", None, "c", "d"], "kind": [1.5, 2.0, float("nan"), None], "other": [[1]] * 4}
    pq.write_table(pa.table(columns), path)
    rows = list(read_rows(str(path), (), ("text", "kind"), Tally()))
    assert [row.fields for row in rows] == [
        {"text": "naïve", "kind": "1.5"},
        {"kind": "2.0"},
        {"text": "c"},
        {"text": "d"},
    ]
    assert rows[2].place.endswith("train.parquet, row 3")
    pq.write_table(pa.table({"text": pa.array(["a", "b"]).dictionary_encode(), "kind": [0, 1]}), path)
    assert rows_of(path) == [{"text": "a", "kind": "0"}, {"text": "b", "kind": "1"}]
    with pytest.raises(UserError, match=r"no column 'label'.*'text', 'kind'.*custom.text_column"):
        list(read_rows(str(path), (), ("label",), Tally()))
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a readable parquet file"):
        rows_of(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block_bytes", [3, 1 << 20])
def test_byte_order_marks_and_line_ends(encoding, end, block_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "train.tsv"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + TABLE.replace("\n", end)).encode(encoding))
    tally = Tally()
    assert rows_of(path, tally) == ROWS
    assert tally.byte_order_marks == 1


def test_a_field_of_any_length(tmp_path):
    text = "word " * 60_000
    (tmp_path / "train.csv").write_text(f'text,kind\n"{text}",good\nplain,bad\n')
    assert rows_of(tmp_path / "train.csv")[0] == {"text": text, "kind": "good"}


def test_a_number_of_any_length_in_a_field_that_nobody_asked_for(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"text": "a", "kind": 12, "id": ' + "7" * 6000 + "}\n" + '{"text": "b", "kind": true, "x": [[1]]}\n'
    )
    (first, second) = rows_of(tmp_path / "train.jsonl")
    assert (first["text"], first["kind"], len(first["id"])) == ("a", "12", 6000)
    assert second == {"text": "b", "kind": "true"}


def test_bytes_that_are_no_text_are_refused_or_left_out_by_line(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_bytes(b"text\tkind\ncaf\xe9\tgood\nplain\tbad\n")
    with pytest.raises(UserError, match=r"train.tsv, line 2: invalid UTF-8, byte 0xe9.*iconv"):
        rows_of(path)
    tally = Tally("skip")
    assert rows_of(path, tally) == [{"text": "plain", "kind": "bad"}]
    assert "bad records: 1" in tally.describe()


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text,kind,text\na,b,c\n")
    with pytest.raises(UserError, match="two columns 'text'"):
        rows_of(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('text,kind\nfine,good\n"never closed,bad\nmore,good\n', r"starts on line 3: unexpected end of data"),
        ('text,kind\n"closed" too early,good\n', r"starts on line 2: .*expected after"),
    ],
)
def test_a_stray_quote_in_a_csv_is_an_error(content, message, tmp_path):
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "expected a JSON object"),
        ('{"text": ', "not valid JSON"),
        ('{"text": ' + "[" * 5000, "not valid JSON"),
        (r'{"text": "half a \ud83d character", "kind": "x"}', r"half a character, U\+D83D"),
    ],
)
def test_bad_jsonl_names_the_line(line, message, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "a", "kind": "x"}\n' + line + "\n")
    with pytest.raises(UserError, match=f"line 2: {message}"):
        rows_of(tmp_path / "train.jsonl")
    assert rows_of(tmp_path / "train.jsonl", Tally("skip")) == [{"text": "a", "kind": "x"}]
