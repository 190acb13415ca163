import pytest

from eelbert_jax.datasets.conll import load_conll, token_task
from eelbert_jax.datasets.tables import Tally
from eelbert_jax.errors import UserError

CONLL = """\
-DOCSTART- -X- O

the DT O
cats NNS B-ANI
\ufeff X O
sat VBD O

a DT B-LET
"""


def write(path, text):
    path.write_text(text)
    return str(path)


def test_conll_columns(tmp_path):
    examples = load_conll(write(tmp_path / "train.txt", CONLL))
    assert examples.words == (("the", "cats", "\ufeff", "sat"), ("a",))
    assert examples.labels == ("O", "B-ANI", "B-LET")
    assert [tags.tolist() for tags in examples.tags] == [[0, 1, 0, 0], [2]]
    assert examples.tally == Tally(examples=2, blank_lines=2)
    hidden = load_conll(str(tmp_path / "train.txt"), examples.labels, tag_column=None)
    assert hidden.tags is None
    assert hidden.words == examples.words
    tabs = write(tmp_path / "tabs.txt", "1\tNew York\tB-LOC\r\n2\tsat\tO\r\n")
    assert load_conll(tabs, word_column=1).words == (("New York", "sat"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat O\nmat\n", r"line 2: 1 column in 'mat'"),
        ("cat O\nmat B-NEW\n", r"line 2: 'B-NEW' is none of the tags O, B-LOC"),
        ("\n\n", "no sentence"),
    ],
)
def test_bad_columns_name_the_line(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        load_conll(write(tmp_path / "dev.txt", text), ("O", "B-LOC"))


CONLLU = """\
# newdoc id = d1
# sent_id = 1
# text = Don't go.
1-2\tDon't\t_\t_\t_\t_\t_\t_\t_\t_
1\tDo\tdo\tAUX\t_\t_\t0\troot\t_\t_
2\tn't\tnot\tPART\t_\t_\t1\tadvmod\t_\t_
2.1\tplease\tplease\tINTJ\t_\t_\t_\t_\t_\t_
3\tgo\tgo\tVERB\t_\t_\t1\txcomp\t_\tSpaceAfter=No
4\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

# sent_id = 2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""


def test_conllu_has_words_and_other_lines(tmp_path):
    path = write(tmp_path / "ud.conllu", CONLLU)
    examples = load_conll(path, word_column=1, tag_column=3)
    assert examples.words == (("Do", "n't", "go", "."), ("#",))
    assert examples.labels == ("AUX", "PART", "PUNCT", "SYM", "VERB")
    assert examples.tally == Tally(examples=2, blank_lines=1, other_lines=6)
    with pytest.raises(UserError, match=r"word_column=1"):
        load_conll(path)


def test_comments_of_other_files_and_words_that_look_like_them(tmp_path):
    text = "# id 7d81\tdomain=en\n#nice NN x O\n# NN x O\nrome NN x B-LOC\n\n# text = b 1\n# NN x O\n"
    examples = load_conll(write(tmp_path / "ner.txt", text))
    assert examples.words == (("#nice", "#", "rome"), ("#",))
    assert examples.labels == ("O", "B-LOC")
    assert examples.tally.other_lines == 2


def test_a_no_break_space_is_part_of_a_word(tmp_path):
    text = "12\u00a0000 B-NUM\npeople  O\n\ta\u00a0b\tO\n"
    examples = load_conll(write(tmp_path / "a.txt", text.replace("\ta\u00a0b", "a\u00a0b")), tag_column=1)
    assert examples.words == (("12\u00a0000", "people", "a\u00a0b"),)
    assert [tags.tolist() for tags in examples.tags] == [[1, 0, 0]]
    with pytest.raises(UserError, match=r"line 3: .*tokens.word_column"):
        load_conll(write(tmp_path / "b.txt", text), tag_column=1)


def test_a_bad_sentence_is_refused_or_left_out_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"cat O\nmat\n\ndog O\n\ncaf\xe9 O\nx\xe9 O\n\nyes B-LOC\n")
    with pytest.raises(UserError, match=r"line 2: 1 column in 'mat'.*tokens.tag_column"):
        load_conll(str(path))
    kept = load_conll(str(path), on_bad_record="skip")
    assert kept.words == (("dog",), ("yes",))
    assert kept.tally.bad_records == 2
    with pytest.raises(UserError, match=r"'B-LOC' is none of the tags O, X; .*tokens.labels"):
        load_conll(str(path), ["O", " X"], on_bad_record="skip") and load_conll(
            write(tmp_path / "b.txt", "yes B-LOC\n"), ["O", " X"]
        )


@pytest.mark.parametrize(
    ("labels", "is_of_entities"),
    [
        ("O B-PER I-PER", True),
        ("O B-PER I-PER L-PER U-LOC", True),
        ("O B-PER M-PER E-PER S-LOC W-LOC", True),
        ("B M E S", True),
        ("O PER LOC", True),
        ("NOUN VERB PUNCT", False),
        ("O N V ! #", False),
        ("O X-PER", False),
        ("O", False),
    ],
)
def test_tags_of_entities_are_scored_by_entities_and_others_say_so(labels, is_of_entities, capsys):
    task = token_task(labels.split())
    assert task.metrics == (("entity_f1", "accuracy") if is_of_entities else ("accuracy",))
    assert ("no scheme of entities" in capsys.readouterr().out) != is_of_entities
