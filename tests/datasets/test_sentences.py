"""Sentences without labels, from every kind of source."""

import pytest

from eelbert_jax import cli
from eelbert_jax.datasets.sentences import read_sentences, split_sentences
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, "the", "file", "opens", "table", "a", "##s", "."))


def read(**changes):
    """Return the sentences of some settings as text."""
    settings = {**cli.load_config("configs/embed.py").to_dict(), **changes}
    rows = read_sentences(settings, VOCABULARY, lowercase=True)
    return [" ".join(VOCABULARY.tokens[i] for i in row[1:-1]) for row in rows]


def test_a_text_is_cut_after_stops_and_what_closes_with_them():
    text = 'He said "Go." "No!" she said. It is 3.5 m. 7 men, e.g. two\nA line'
    assert split_sentences(text) == [
        'He said "Go."',
        '"No!" she said.',
        "It is 3.5 m.",
        "7 men, e.g. two",
        "A line",
    ]


def test_sentences_of_all_sources_are_there_once_and_long_ones_are_left_out(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("The file opens. The table opens.\n\nThe file opens.\n" + "the " * 9)
    (tmp_path / "table.tsv").write_text("sentence\tlabel\nThe file opens.\t1\na file\t0\n")
    found = read(source=str(tmp_path / "text.txt"), tables=str(tmp_path / "*.tsv"), words=True, max_length=8)
    words = ["the", "file", "opens", "table"]
    assert found == [*words, "a file", "the file opens .", "the table opens ."]
    said = capsys.readouterr().out
    assert "source: 2 sentences" in said
    assert "1 of more than 8 tokens left out" in said
    assert "tables: 1 sentences" in said


def test_so_many_are_taken_from_each_file(tmp_path):
    for name in ("table", "file"):
        (tmp_path / f"{name}.txt").write_text(f"A {name}. The {name}. {name.title()}s.")
    found = read(source=str(tmp_path / "*.txt"), sentences_per_file=2)
    assert sorted(found) == ["a file .", "a table .", "the file .", "the table ."]


def test_whole_lines_of_some_length_are_passages(tmp_path):
    passage = " ".join(["The file ."] * 11)
    lines = ["The table.", passage, "A " * 81, passage.replace("file", "table")]
    (tmp_path / "text.txt").write_text("\n".join(lines))
    found = read(source=str(tmp_path / "text.txt"), sentences_per_file=2, passages_per_file=1)
    assert sorted(found) == sorted(["the table .", "the file .", passage.lower()])


def test_both_texts_of_a_glue_pair_are_read_of_the_training_file_alone(tmp_path):
    (tmp_path / "RTE").mkdir()
    header = "index\tsentence1\tsentence2\tlabel\n"
    (tmp_path / "RTE" / "train.tsv").write_text(f"{header}0\tthe file\ta table\tentailment\n")
    (tmp_path / "RTE" / "dev.tsv").write_text(f"{header}0\tthe table\ta file\tentailment\n")
    assert sorted(read(glue_tasks="rte", glue_dir=str(tmp_path))) == ["a table", "the file"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, r"no sentences: set --config\.source"),
        ({"tables": "/nowhere/*.tsv"}, "No file matches tables="),
        ({"passages_per_file": -1}, "passages_per_file must not be negative, got -1"),
        ({"words": True, "max_length": 2}, "max_length must be at least 3"),
    ],
)
def test_what_cannot_be_read_is_named(changes, said):
    with pytest.raises(UserError, match=said):
        read(**changes)
