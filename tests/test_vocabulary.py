"""Vocabularies: files in both directions, training, the tokenizer against the published one, bad input."""

import collections
import lzma
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from eelbert_jax import vocabulary as vocabulary_module
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import (
    SPECIAL_TOKENS,
    Vocabulary,
    check_unknown,
    load_vocabulary,
    make_tokenizer,
    save_vocabulary,
    train_vocabulary,
)

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "Running foxes run quickly; sleeping dogs sleep deeply in 1987.",
] * 5


@pytest.fixture
def small():
    words = ["the", "fox", "run", "##ning", "##s", "##ing", "r", "##u", "##n", "walk", ",", "[", "]", "mask"]
    return Vocabulary((*SPECIAL_TOKENS, *words))


def test_ids_are_positions(small):
    assert small.size == 19
    assert small.special_ids == (0, 1, 2, 3, 4)
    assert (small.pad_id, small.unk_id, small.cls_id, small.sep_id, small.mask_id) == (0, 1, 2, 3, 4)
    assert small.id_of("fox") == 6
    assert "fox" in small
    assert "dog" not in small
    with pytest.raises(UserError, match="'dog'"):
        small.id_of("dog")


def test_special_tokens_may_stand_anywhere():
    vocabulary = Vocabulary(("[MASK]", "a", "[SEP]", "[CLS]", "[PAD]", "[UNK]"))
    assert vocabulary.special_ids == (4, 5, 3, 2, 0)


def test_the_fingerprint_covers_tokens_and_order(small):
    swapped = list(small.tokens)
    swapped[5:7] = swapped[6], swapped[5]
    others = [Vocabulary(tuple(swapped)), Vocabulary(small.tokens[:-1]), Vocabulary((*small.tokens, "dog"))]
    assert len({vocabulary.fingerprint for vocabulary in (small, *others)}) == 4
    assert Vocabulary(small.tokens).fingerprint == small.fingerprint == "035d30983c8e0ca4"


# Whatever may stand in a line of a file, other separators of Unicode and a lone carriage return excepted.
legal_tokens = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1)


@given(tokens=st.lists(legal_tokens, unique=True, max_size=20))
def test_a_file_gives_back_what_was_saved(tmp_path_factory, tokens):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *(token for token in tokens if token not in SPECIAL_TOKENS)))
    save_vocabulary(vocabulary, path)
    assert load_vocabulary(path) == vocabulary


def test_the_published_file(vocabulary_file, tmp_path):
    vocabulary = load_vocabulary(vocabulary_file)
    assert vocabulary.size == 30522
    assert vocabulary.special_ids == (0, 100, 101, 102, 103)
    save_vocabulary(vocabulary, tmp_path / "vocab.txt")
    assert (tmp_path / "vocab.txt").read_bytes() == vocabulary_file.read_bytes()


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_what_other_systems_write_is_no_part_of_a_token(tmp_path, small, line_end, mark):
    path = tmp_path / "vocab.txt"
    path.write_text(mark + "".join(token + line_end for token in small.tokens), "utf-8", newline="")
    assert load_vocabulary(path) == small


def test_home_folder_is_understood(tmp_path, small, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save_vocabulary(small, tmp_path / "vocab.txt")
    assert load_vocabulary("~/vocab.txt") == small


def test_a_vocabulary_that_does_not_fit_says_what_to_do():
    check_unknown(0, 0, 5.0, lowercase=True)
    check_unknown(5, 100, 5.0, lowercase=False)
    with pytest.raises(
        UserError, match=r"6\.0 % .*\[UNK\], .*--config\.lowercase=True.*max_unknown_percent=100"
    ):
        check_unknown(6, 100, 5.0, lowercase=False)
    with pytest.raises(UserError, match=r"another --config\.vocabulary; or") as refused:
        check_unknown(6, 100, 5.0, lowercase=True)
    assert "lowercase" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", r"no \[MASK\]"),
        ("\n".join([*SPECIAL_TOKENS, "a", "b", "a"]).encode(), "'a' twice"),
        ("\n".join([*SPECIAL_TOKENS, "", "b"]).encode(), "Token 5"),
        ("\n".join([*SPECIAL_TOKENS, "é"]).encode("latin-1"), "no UTF-8"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        load_vocabulary(path)
    assert str(path) in str(refused.value)


def test_unreachable_files_are_refused(tmp_path, small):
    with pytest.raises(UserError, match="Cannot read"):
        load_vocabulary(tmp_path / "missing.txt")
    with pytest.raises(UserError, match="Cannot read"):
        load_vocabulary(tmp_path)
    with pytest.raises(UserError, match="Cannot write"):
        save_vocabulary(small, tmp_path / "missing" / "vocab.txt")


def test_training_makes_a_vocabulary_that_reads_its_own_text():
    vocabulary = train_vocabulary(iter(TEXTS), 80)
    assert vocabulary.tokens[:5] == SPECIAL_TOKENS
    assert 40 < vocabulary.size <= 80
    assert all(token == token.lower() for token in vocabulary.tokens[5:])
    encoding = make_tokenizer(vocabulary).encode(TEXTS[0])
    assert vocabulary.unk_id not in encoding.ids
    assert "the" in encoding.tokens


def test_training_depends_on_the_texts_alone():
    # The library numbers tokens after a hash map that is seeded anew in every call, and ties go by number.
    once = train_vocabulary(TEXTS, 80)
    for attempt in range(5):
        assert train_vocabulary(TEXTS[attempt:] + TEXTS[:attempt], 80) == once
    assert train_vocabulary([*TEXTS, "walking walkers"], 80) != once


@given(texts=st.lists(st.text()), lowercase=st.booleans())
def test_words_are_those_of_whole_texts(texts, lowercase):
    # Training splits what stands between spaces, once; the published way is to split every text.
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lowercase), pre_tokenizers.BertPreTokenizer()
    words = [splitter.pre_tokenize_str(normalizer.normalize_str(text)) for text in texts]
    expected = collections.Counter(word for text in words for word, _ in text)
    assert vocabulary_module._count_words(texts, lowercase) == expected


def test_training_can_keep_case():
    assert any(token.isupper() for token in train_vocabulary(TEXTS, 120, lowercase=False).tokens[5:])


@pytest.mark.parametrize(
    ("texts", "size", "message"), [(TEXTS, 50, "no room"), ([], 100, "no word"), (["  "], 100, "no word")]
)
def test_bad_training_is_refused(texts, size, message):
    with pytest.raises(UserError, match=message):
        train_vocabulary(texts, size)


def test_the_tokenizer_splits_longest_first(small):
    tokenizer = make_tokenizer(small)
    assert tokenizer.encode("The FOX, running walks").tokens == [
        "the",
        "fox",
        ",",
        "run",
        "##ning",
        "walk",
        "##s",
    ]
    assert tokenizer.encode("dog").tokens == ["[UNK]"]
    assert tokenizer.encode("r" + "u" * 100).tokens == ["[UNK]"]
    assert make_tokenizer(small, lowercase=False).encode("The fox").tokens == ["[UNK]", "fox"]
    assert tokenizer.decode([7, 8, 6]) == "running fox"


def test_a_text_names_special_tokens_only_where_asked(small):
    text = "the [MASK] walks"
    assert make_tokenizer(small).encode(text).tokens == ["the", "[", "mask", "]", "walk", "##s"]
    prompt = make_tokenizer(small, special_tokens=True)
    assert prompt.encode(text).ids == [5, small.mask_id, 14, 9]
    assert prompt.get_vocab_size() == small.size


@pytest.mark.slow
def test_the_tokenizer_is_the_published_one(vocabulary_file, data_dir):
    from transformers import BertTokenizer

    vocabulary = load_vocabulary(vocabulary_file)
    tokenizer, published = make_tokenizer(vocabulary), BertTokenizer(str(vocabulary_file))
    with lzma.open(data_dir / "corpus" / "enwiki-00.txt.xz", "rt", encoding="utf-8") as lines:
        texts = [line for line, _ in zip(lines, range(2000), strict=False)]
    letters = random.Random(0)
    texts += ["".join(chr(letters.randrange(32, 0x3000)) for _ in range(60)) for _ in range(200)]
    for text in texts:
        assert tokenizer.encode(text).ids == published.encode(text, add_special_tokens=False), text
    changed = make_tokenizer(vocabulary, lowercase=False)
    assert any(changed.encode(text).ids != tokenizer.encode(text).ids for text in texts)
