"""Answers of a model: those of each text alone, for any number and length of texts, by mean over windows."""

import dataclasses

import jax
import numpy as np
import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.inference import compiled
from eelbert_jax.inference.load import load
from eelbert_jax.inference.windows import word_windows
from eelbert_jax.model import bert
from eelbert_jax.model.backbone import BertModel
from support.models import (
    CONFIG,
    NLI_LABELS,
    VOCABULARY,
    WORDS,
    ids_of,
    logits_alone,
    save_finetuned,
    save_pretrained,
    softmax,
)

TEXTS = ["the file opens .", "a table " * 30, "", "the table opens .", "the run " * 40, "a runner runs ."]
TOLERANCE = 1e-5
"""Padding adds masked zeros to float32 sums of a few hundred products: the last bits move."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def sst2(folder):
    return load(save_finetuned(folder / "sst2", "sst2", "classify", ("negative", "positive")))


@pytest.fixture(scope="module")
def mnli(folder):
    return load(save_finetuned(folder / "mnli", "mnli", "classify", NLI_LABELS, pairs=True))


@pytest.fixture(scope="module")
def stsb(folder):
    return load(save_finetuned(folder / "stsb", "stsb", "regress", pairs=True, mean=2.5, std=1.5))


@pytest.fixture(scope="module")
def tagger(folder):
    return load(save_finetuned(folder / "tagger", "tokens", "tag", ("O", "B-X", "I-X"), max_length=12))


@pytest.fixture(scope="module")
def pretrained(folder):
    return load(save_pretrained(folder / "pretrained"))


def test_classes_are_those_of_each_text_alone(sst2):
    answers = sst2.classify(text for text in TEXTS * 9)
    expected = [softmax(logits_alone(sst2, text)) for text in TEXTS] * 9
    for answer, shares in zip(answers, expected, strict=True):
        assert list(answer.probabilities.values()) == pytest.approx(shares.tolist(), abs=TOLERANCE)
        assert answer.label == ("negative", "positive")[int(np.argmax(shares))]
        assert answer.probability == max(answer.probabilities.values())
    assert len({round(answer.probability, 4) for answer in answers}) > 3
    assert [answer.truncated for answer in answers[: len(TEXTS)]] == [False, True, False, False, True, False]
    assert sst2.classify([]) == []


def test_pairs_and_numbers(mnli, stsb):
    pairs = ["the file", "a table opens ."], ["a table opens .", "the file"]
    for answer, first, second in zip(mnli.classify(*pairs), *pairs, strict=True):
        expected = softmax(logits_alone(mnli, first, second))
        assert list(answer.probabilities.values()) == pytest.approx(expected.tolist(), abs=TOLERANCE)
    for answer, first, second in zip(stsb.classify(*pairs), *pairs, strict=True):
        assert answer.score == pytest.approx(2.5 + 1.5 * logits_alone(stsb, first, second)[0], abs=TOLERANCE)
        assert not answer.truncated


def test_windows_are_pooled(sst2):
    text = " ".join(np.random.default_rng(0).choice(WORDS[:8], 120))
    tokens = text.split()
    starts = [0, 20, 40, 60, 74]  # the last one ends with the text: all are of 46 tokens
    shares = [softmax(logits_alone(sst2, " ".join(tokens[start : start + 46]))) for start in starts]
    short, long = sst2.classify(["the file", text], stride=20)
    assert list(long.probabilities.values()) == pytest.approx(np.mean(shares, axis=0).tolist(), abs=TOLERANCE)
    assert not long.truncated
    (alone,) = sst2.classify(["the file"])
    assert short.probabilities == pytest.approx(alone.probabilities, abs=TOLERANCE)
    (cut,) = sst2.classify([text])
    assert cut.truncated
    assert list(cut.probabilities.values()) == pytest.approx(shares[0].tolist(), abs=TOLERANCE)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_each_text_alone(pretrained, pooling):
    texts = ["the file opens .", "a", "", "the table opens ."]
    found = pretrained.encode(texts, pooling=pooling)
    assert found.shape == (4, CONFIG.hidden_size)
    assert found.dtype == np.float32
    variables = {"params": pretrained.params["bert"], "constants": pretrained.constants["bert"]}
    apply = jax.jit(BertModel(CONFIG, with_pooler=False).apply, static_argnums=4)
    for vector, text in zip(found, texts, strict=True):
        ids = np.array([[VOCABULARY.cls_id, *ids_of(text), VOCABULARY.sep_id]], np.int32)
        hidden = apply(variables, ids, None, None, True)[0]
        expected = hidden.mean(axis=0) if pooling == "mean" else hidden[0]
        np.testing.assert_allclose(vector, expected, atol=TOLERANCE)
    assert pretrained.encode([]).shape == (0, CONFIG.hidden_size)


def test_a_long_texts_vector_is_the_mean_of_its_windows(sst2):
    tokens = ["the", "file"] * 40
    parts = [" ".join(tokens[start : start + 46]) for start in (0, 30, 34)]
    expected = sst2.encode(parts).mean(axis=0)
    np.testing.assert_allclose(sst2.encode([" ".join(tokens)], stride=30)[0], expected, atol=TOLERANCE)


def test_tags_are_those_of_each_sentence_alone(tagger):
    sentences = ["the file opens .", ["a", "runs", "."], "", "run " * 14]
    found = tagger.tag(sentences)
    assert [len(tags) for tags in found] == [4, 3, 0, 14]
    assert [tag.word for tag in found[1]] == ["a", "runs", "."]
    rows = softmax(logits_alone(tagger, "a runs ."))[[1, 2, 4]]  # a word's first piece
    for tag, row in zip(found[1], rows, strict=True):
        assert list(tag.probabilities.values()) == pytest.approx(row.tolist(), abs=TOLERANCE)
        assert tag.tag == ("O", "B-X", "I-X")[int(np.argmax(row))]
        assert tag.probability == max(tag.probabilities.values())
    assert [tag.tag is None for tag in found[3]] == [False] * 10 + [True] * 4
    assert found[3][-1] == ("run", None, None, {})


def test_tags_beyond_the_last_piece_come_from_windows(tagger):
    words = np.random.default_rng(1).choice(WORDS[:8], 17).tolist()
    found = tagger.tag([words], stride=4)[0]
    sums, counts = np.zeros((17, 3)), np.zeros(17)
    for start in (0, 4, 8):  # windows of 10 tokens; the third one reaches the end
        rows = softmax(logits_alone(tagger, " ".join(words[start : start + 10])))[1:-1]
        sums[start : start + len(rows)] += rows
        counts[start : start + len(rows)] += 1
    assert counts.tolist() == [1] * 4 + [2] * 4 + [3] * 2 + [2] * 4 + [1] * 3
    for tag, row in zip(found, sums / counts[:, None], strict=True):
        assert list(tag.probabilities.values()) == pytest.approx(row.tolist(), abs=TOLERANCE)


@pytest.mark.parametrize("stride", [1, 3, 10])
def test_windows_of_words_leave_no_word_out(stride):
    random = np.random.default_rng(stride)
    sentences = [random.choice(["run", "runs", "runnings", "tables"], size).tolist() for size in (1, 9, 50)]
    seen = [[False] * len(words) for words in sentences]
    for window in word_windows(sentences, VOCABULARY, True, 12, stride):
        assert window.words
        assert sentences[window.sentence][window.start : window.start + len(window.words)] == window.words
        for place in range(len(window.words)):
            seen[window.sentence][window.start + place] = True
    assert all(map(all, seen))


def test_a_mask_has_the_models_probabilities(pretrained):
    texts = ["The [MASK] opens a [MASK] .", "the [MASK]", "a [MASK] " * 20]
    found = pretrained.fill_mask(texts, top=VOCABULARY.size)
    assert [len(masks) for masks in found] == [2, 1, 20]
    variables = {"params": pretrained.params, "constants": pretrained.constants}
    apply = jax.jit(bert.BertForMaskedLM(CONFIG).apply)
    for text, masks in zip(texts, found, strict=True):
        ids = np.array(
            [[VOCABULARY.cls_id, *ids_of(text.replace("The", "the")), VOCABULARY.sep_id]], np.int32
        )
        expected = jax.nn.softmax(apply(variables, ids)[0])
        for position, guesses in zip(np.flatnonzero(ids[0] == VOCABULARY.mask_id), masks, strict=True):
            shares = [share for _, share in guesses]
            assert shares == sorted(shares, reverse=True)
            for token, share in guesses:
                expected_share = float(expected[position, VOCABULARY.id_of(token)])
                assert share == pytest.approx(expected_share, abs=TOLERANCE)


def test_guesses_follow_the_parameters(pretrained):
    predictions = pretrained.params["cls"]["predictions"]
    bias = predictions["bias"].at[VOCABULARY.id_of("table")].set(500.0)
    params = {**pretrained.params, "cls": {"predictions": {**predictions, "bias": bias}}}
    (masks,) = dataclasses.replace(pretrained, params=params).fill_mask(["the [MASK] ."], top=1)
    assert masks == [[("table", pytest.approx(1.0, abs=1e-6))]]


@pytest.mark.parametrize(
    ("name", "ask", "said"),
    [
        (
            "sst2",
            lambda m: m.classify("the file"),
            r"the string 'the file': write classify\(\[text",
        ),
        ("sst2", lambda m: m.encode("the file"), r"write encode\(\[text"),
        ("tagger", lambda m: m.tag("the file"), r"write tag\(\[text"),
        ("pretrained", lambda m: m.fill_mask("[MASK]"), r"write fill_mask\(\[text"),
        ("sst2", lambda m: m.classify(["the", None]), "takes strings; number 1 is None"),
        ("sst2", lambda m: m.classify(["the"], ["file"]), "for sst2 reads one list of texts; got 1 and 1"),
        ("mnli", lambda m: m.classify(["the"]), "mnli reads as many second texts as texts; got 1"),
        ("mnli", lambda m: m.classify(["the"], []), "as many second texts as texts; got 1 and 0"),
        ("mnli", lambda m: m.classify(["the"], ["a"], stride=8), "stride=8 is for single texts"),
        ("sst2", lambda m: m.classify(["the"], stride=47), "stride=47 is not from 1 to 46"),
        ("sst2", lambda m: m.classify(["the"], stride=-1), "stride=-1 is not from 1 to 46"),
        ("tagger", lambda m: m.tag(["the"], stride=11), "stride=11 is not from 1 to 10"),
        ("sst2", lambda m: m.encode(["the"], pooling="max"), "pooling='max' is not one of mean, cls"),
        (
            "pretrained",
            lambda m: m.fill_mask(["the file"]),
            r"must have a \[MASK\] and at most 512",
        ),
        ("pretrained", lambda m: m.fill_mask(["[MASK] " * 600]), r"\.\.\.' must have .* it has 600 and 602"),
        ("pretrained", lambda m: m.fill_mask(["[MASK]"], top=99), "99 tokens a mask; take 1 to 16"),
    ],
)
def test_what_cannot_be_answered_is_named(name, ask, said, request):
    with pytest.raises(UserError, match=said):
        ask(request.getfixturevalue(name))


def test_a_length_is_compiled_once(sst2):
    sst2.classify(TEXTS * 20)
    before = compiled.head_outputs._cache_size()
    sst2.classify(TEXTS[::-1] * 20)
    assert compiled.head_outputs._cache_size() == before
