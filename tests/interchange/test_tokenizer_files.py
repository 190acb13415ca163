"""The tokenizer of a folder in the Hugging Face layout: in one file or several, cased or not, refused."""

import json

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.interchange.folder import read_folder, write_folder
from eelbert_jax.model import bert
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, make_tokenizer
from support.folders import VOCABULARY, WORDS, edit, micro, random_params, write


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strip_accents": True}, "accents"),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars is off"),
    ],
)
def test_a_tokenizer_that_reads_otherwise_is_refused(tmp_path, changes, said):
    write(tmp_path)
    edit(tmp_path / "tokenizer_config.json", **changes)
    with pytest.raises(UserError, match=said):
        read_folder(tmp_path)


def whole_tokenizer(lowercase, **changes):
    """Return a tokenizer.json as the library of tokenizers writes it."""
    values = json.loads(make_tokenizer(VOCABULARY, lowercase, special_tokens=True).to_str())
    return json.dumps({**values, **changes})


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("settings", [None, {"backend": "tokenizers", "strip_accents": None}])
def test_a_tokenizer_in_one_file_is_read(tmp_path, lowercase, settings):
    write(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "tokenizer.json").write_text(whole_tokenizer(lowercase))
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = read_folder(tmp_path)
    assert found.vocabulary == VOCABULARY
    assert found.lowercase is lowercase


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"type": "BPE"}}, "is of a BPE tokenizer"),
        ({"normalizer": {"type": "Lowercase"}}, "WordPiece tokenizer with Lowercase and BertPreTokenizer"),
        ({"pre_tokenizer": None}, "with BertNormalizer and None; expected BERT's"),
        ({"added_tokens": [{"content": "<new>", "id": 99}]}, "ids of its 15 tokens are not 0 to 14"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(tmp_path, changes, said):
    write(tmp_path)
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer.json").write_text(whole_tokenizer(True, **changes))
    with pytest.raises(UserError, match=said):
        read_folder(tmp_path)


def test_without_a_word_on_case_the_vocabulary_decides(tmp_path):
    for name, tokens, lowercase in (("uncased", WORDS, True), ("cased", (*WORDS[:-1], "Paris"), False)):
        vocabulary = Vocabulary((*SPECIAL_TOKENS, *tokens))
        params = random_params(bert.BertForMaskedLM(micro()))
        write_folder(tmp_path / name, micro(), vocabulary, params, lowercase=not lowercase)
        (tmp_path / name / "tokenizer_config.json").unlink()
        assert read_folder(tmp_path / name).lowercase is lowercase
