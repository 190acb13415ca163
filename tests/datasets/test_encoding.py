import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eelbert_jax.datasets import encoding
from eelbert_jax.datasets.encoding import WORTH_COMPILING, Encoded
from eelbert_jax.datasets.glue import load_examples
from eelbert_jax.datasets.tasks import GLUE_TASKS
from eelbert_jax.errors import UserError
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary

WORDS = ("the", "cat", "sat", "##s", "on", "mat", ".", "!", "a", "b", "[", "]", "mask")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
PAD, UNK, CLS, SEP, MASK = VOCABULARY.special_ids


def ids_of(text):
    return [VOCABULARY.id_of(token) for token in text.split()]


def of_lengths(lengths, max_length=128):
    """Examples of given numbers of tokens, each of its own number."""
    lengths = np.array(lengths, np.int32)
    ids = tuple(np.full(length, i, np.int32) for i, length in enumerate(lengths))
    return Encoded(ids, np.stack([lengths, 0 * lengths], 1), max_length, PAD, 0, 0)


# Single texts and pairs.


def test_a_text_and_a_pair():
    one = encoding.encode_texts(["The cats sat."], None, VOCABULARY, 16)
    assert one.ids[0].tolist() == ids_of("[CLS] the cat ##s sat . [SEP]")
    assert one.ids[0].dtype == np.int32
    assert one.segment_lengths.tolist() == [[7, 0]]
    pair = encoding.encode_texts(["a"], ["b !"], VOCABULARY, 16)
    assert pair.ids[0].tolist() == ids_of("[CLS] a [SEP] b ! [SEP]")
    assert pair.segment_lengths.tolist() == [[3, 3]]
    assert (pair.num_truncated, pair.num_empty) == (0, 0)


def test_the_name_of_a_special_token_in_a_text_is_text():
    found = encoding.encode_texts(["[MASK]"], None, VOCABULARY, 16)
    assert found.ids[0].tolist() == ids_of("[CLS] [ mask ] [SEP]")


def test_empty_texts_are_counted_after_the_removal_of_what_bert_removes():
    found = encoding.encode_texts(["", "  ", "\ufeff\u200b", "a"], None, VOCABULARY, 16)
    assert [row.tolist() for row in found.ids[:3]] == [[CLS, SEP]] * 3
    assert found.num_empty == 3
    pair = encoding.encode_texts(["", "a"], ["", "a"], VOCABULARY, 16)
    assert pair.ids[0].tolist() == [CLS, SEP, SEP]
    assert pair.num_empty == 2


def test_a_text_of_10000_words_is_cut_and_counted():
    long = "cat " * 10_000
    started = time.perf_counter()
    one = encoding.encode_texts([long, "cat"], None, VOCABULARY, 128)
    pair = encoding.encode_texts([long, long, "cat"], ["the mat", long, "cat"], VOCABULARY, 128)
    assert time.perf_counter() - started < 5
    assert one.lengths.tolist() == [128, 3]
    assert one.num_truncated == 1
    assert one.ids[0][-1] == SEP
    assert pair.segment_lengths.tolist() == [[2 + 123, 3], [2 + 62, 1 + 63], [3, 2]]
    assert pair.num_truncated == 2


@pytest.mark.parametrize(("max_length", "second"), [(2, None), (4, ["b"]), (0, None)])
def test_no_room_is_an_error(max_length, second):
    with pytest.raises(UserError, match=f"max_length={max_length} has no room"):
        encoding.encode_texts(["a"], second, VOCABULARY, max_length)


@settings(max_examples=200)
@given(first=st.integers(0, 40), second=st.integers(0, 40), room=st.integers(2, 50))
def test_the_cut_leaves_as_much_as_fits_and_spares_the_shorter(first, second, room):
    a, b = encoding.cut_longest_first(first, second, room)
    assert a <= first
    assert b <= second
    assert a + b == min(first + second, room)
    if a < first:
        assert b == second or abs(a - b) <= 1
        assert a >= b - 1
    if b < second:
        assert a == first or abs(a - b) <= 1
        assert b >= a - 1


# Parity with Hugging Face.


@pytest.fixture
def published(vocabulary_file):
    transformers = pytest.importorskip("transformers")
    return transformers.BertTokenizerFast(str(vocabulary_file))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "rte", "wnli", "qnli", "qqp_sample"])
@pytest.mark.parametrize("max_length", [128, 31])
def test_parity_with_transformers_on_real_examples(name, max_length, published, vocabulary_file, data_dir):
    examples = load_examples(GLUE_TASKS[name], "dev", glue_dir=str(data_dir / "glue"))
    ours = encoding.encode(examples, load_vocabulary(vocabulary_file), max_length)
    pairs = [list(examples.first)] + ([] if examples.second is None else [list(examples.second)])
    theirs = published(*pairs, truncation="longest_first", max_length=max_length)
    assert [row.tolist() for row in ours.ids] == theirs["input_ids"]
    for i, types in enumerate(theirs["token_type_ids"]):
        assert ours.segment_lengths[i].tolist() == [types.count(0), types.count(1)]
    whole = published(*pairs)["input_ids"]
    assert ours.num_truncated == sum(len(row) > max_length for row in whole)


@pytest.mark.slow
def test_the_comparison_notices_another_reading(published, vocabulary_file, data_dir):
    examples = load_examples(GLUE_TASKS["cola"], "dev", glue_dir=str(data_dir / "glue"))
    cased = encoding.encode(examples, load_vocabulary(vocabulary_file), 128, lowercase=False)
    assert [row.tolist() for row in cased.ids] != published(list(examples.first))["input_ids"]


@pytest.mark.slow
def test_the_cut_is_that_of_transformers_for_all_lengths(published, vocabulary_file):
    vocabulary = load_vocabulary(vocabulary_file)
    first, second = zip(*[("a " * i, "b " * j) for i in range(12) for j in range(12)], strict=True)
    for max_length in (5, 8, 9, 14):
        ours = encoding.encode_texts(first, second, vocabulary, max_length)
        theirs = published(list(first), list(second), truncation="longest_first", max_length=max_length)
        assert [row.tolist() for row in ours.ids] == theirs["input_ids"]


# Batches.


@pytest.mark.parametrize(
    ("worth", "expected"),
    [
        (12, (8, 12, 24, 32, 96)),
        (13, (8, 24, 32, 96)),
        (33, (8, 32, 96)),
        (97, (32, 96)),
        (705, (96,)),
    ],
)
def test_a_length_stands_where_it_spares_enough_padding(worth, expected):
    # At first 8 spares 4 tokens each to 12, 12 spares 12 to 24, 24 spares 8 to 32, 32 spares 64 to 96.
    lengths = np.repeat([7, 10, 20, 30, 90], [4, 1, 3, 3, 1])
    assert encoding.bucket_lengths(lengths, 128, worth) == expected


@pytest.mark.parametrize(("max_length", "expected"), [(8, (8,)), (17, (8, 17)), (100, (8, 24))])
def test_the_last_length_is_at_most_the_longest_allowed(max_length, expected):
    assert encoding.bucket_lengths(np.array([3, min(max_length, 17)]), max_length, 1) == expected


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 100), min_size=1, max_size=80),
    batch_size=st.integers(1, 17),
    seed=st.integers(-5, 5),
    epoch=st.integers(0, 3),
    worth=st.sampled_from([1, 100, WORTH_COMPILING]),
)
def test_every_example_once_in_a_static_shape_that_fits(lengths, batch_size, seed, epoch, worth):
    encoded = of_lengths(lengths, max_length=100)
    buckets = encoding.bucket_lengths(encoded.lengths, 100, worth)
    for batches in (
        encoding.eval_batches(encoded, batch_size, worth),
        *([encoding.train_batches(encoded, batch_size, seed, epoch)] if worth == WORTH_COMPILING else []),
    ):
        counts = np.zeros(len(encoded))
        for length, indices, weights in batches:
            assert indices.shape == weights.shape == (batch_size,)
            assert weights.dtype == np.float32
            assert weights.sum() >= 1
            np.add.at(counts, indices, weights)
            shorter = [bucket for bucket in buckets if bucket < length]
            assert np.all(encoded.lengths[indices] <= length)
            assert np.all(encoded.lengths[indices] > max([0, *shorter]))
        np.testing.assert_array_equal(counts, 1)
    for length in buckets:
        filled_up = [b for b in batches if b.length == length and b.weights.min() == 0]
        assert len(filled_up) <= 1


def test_batches_are_a_pure_function_of_seed_and_epoch():
    encoded = of_lengths([5, 20] * (WORTH_COMPILING // 16))  # both lengths are worth compiling

    def order(seed, epoch):
        return [batch.indices.tolist() for batch in encoding.train_batches(encoded, 64, seed, epoch)]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    lengths = [batch.length for batch in encoding.train_batches(encoded, 64, 0, 0)]
    assert lengths != sorted(lengths), "batches of one length must not come in a row"


def test_evaluation_keeps_the_order_within_a_length():
    batches = encoding.eval_batches(of_lengths([5, 20, 6, 21, 7]), 2, worth=1)
    found = [(length, indices.tolist(), weights.tolist()) for length, indices, weights in batches]
    assert found == [(8, [0, 2], [1, 1]), (8, [4, 4], [1, 0]), (24, [1, 3], [1, 1])]


@pytest.mark.parametrize(("lengths", "batch_size"), [([], 4), ([3], 0)])
def test_nothing_to_batch(lengths, batch_size):
    with pytest.raises(UserError, match="must be positive"):
        encoding.eval_batches(of_lengths(lengths), batch_size)
    with pytest.raises(UserError, match="must be positive"):
        encoding.train_batches(of_lengths(lengths), batch_size, 0, 0)


def test_gather_pads():
    encoded = encoding.encode_texts(["a", "the cat sat"], ["b", "on"], VOCABULARY, 16)
    ids, mask, types = encoding.gather(encoded, np.array([1, 0, 1]), 9)
    assert (ids.dtype, mask.dtype, types.dtype) == (np.int32, np.bool_, np.int32)
    assert ids[0].tolist() == [*ids_of("[CLS] the cat sat [SEP] on [SEP]"), PAD, PAD]
    assert ids[1].tolist() == [*ids_of("[CLS] a [SEP] b [SEP]"), PAD, PAD, PAD, PAD]
    assert mask.tolist()[1] == [True] * 5 + [False] * 4
    assert types.tolist() == [[0] * 5 + [1] * 2 + [0] * 2, [0] * 3 + [1] * 2 + [0] * 4, types[0].tolist()]
    assert ids[2].tolist() == ids[0].tolist()
    with pytest.raises(ValueError, match="does not fit into 6"):
        encoding.gather(encoded, np.array([1]), 6)


# Sentences of words.


SENTENCES = (("the", "cats", "\ufeff", "sat"), ("a",))
TAGS = (np.array([0, 1, 0, 0], np.int32), np.array([2], np.int32))


def test_a_word_stands_for_its_first_piece():
    encoded = encoding.encode_words(SENTENCES, VOCABULARY, 16)
    assert encoded.ids[0].tolist() == ids_of("[CLS] the cat ##s [UNK] sat [SEP]")
    assert encoded.word_starts[0].tolist() == [1, 2, 4, 5]
    assert encoded.num_empty == 1
    tags = encoding.gather_tags(encoded, TAGS, np.array([1, 0]), 8)
    x = encoding.IGNORED
    assert tags.tolist() == [[x, 2, x, x, x, x, x, x], [x, 0, 1, x, 0, 0, x, x]]
    ids, _, types = encoding.gather(encoded, np.array([1, 0]), 8)
    assert ids[0].tolist() == [*ids_of("[CLS] a [SEP]"), *[PAD] * 5]
    assert not types.any()


def test_words_that_were_cut_off_count_as_outside():
    encoded = encoding.encode_words(SENTENCES, VOCABULARY, 4)
    assert encoded.ids[0].tolist() == ids_of("[CLS] the cat [SEP]")
    assert encoded.num_truncated == 1
    truth = encoding.gather_tags(encoded, TAGS, np.array([0, 1]), 4)
    found = encoding.at_words(encoded, np.array([0, 1]), truth)
    assert [tags.tolist() for tags in found] == [[0, 1], [2]]
    with pytest.raises(UserError, match="max_length=2 has no room"):
        encoding.encode_words(SENTENCES, VOCABULARY, 2)


@pytest.mark.slow
def test_parity_of_words_with_transformers(published, vocabulary_file, data_dir):
    texts = load_examples(GLUE_TASKS["qnli"], "dev", glue_dir=str(data_dir / "glue")).second[:500]
    words = [text.split() for text in texts]
    for max_length in (128, 20):
        ours = encoding.encode_words(words, load_vocabulary(vocabulary_file), max_length)
        theirs = published(words, is_split_into_words=True, truncation=True, max_length=max_length)
        assert [row.tolist() for row in ours.ids] == theirs["input_ids"]
        for i, starts in enumerate(ours.word_starts):
            places = theirs.word_ids(i)
            first = [p for p, w in enumerate(places) if w is not None and w != places[p - 1]]
            assert starts.tolist() == first
