"""The page's script against Python: the same ids, the same bits of the hash, the same answers."""

import dataclasses
import html
import re
import shutil
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from eelbert_jax.datasets.encoding import encode_texts
from eelbert_jax.datasets.tasks import TaskRecord
from eelbert_jax.errors import UserError
from eelbert_jax.export import page
from eelbert_jax.hashing.reference import hash_table
from eelbert_jax.hashing.spec import PRESETS, HashSpec
from eelbert_jax.inference.predict import Model, model_class
from eelbert_jax.model import bert
from eelbert_jax.model.config import sized
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary, make_tokenizer
from support.clients import in_node, shown_in_browser
from support.models import VOCABULARY, params_of

TEXTS = (
    "a runner opens the file.",
    "RUNNING tables",
    "",
    "the the the the the the the the",
    "ünï 中文 😀 </script>",
)
SPECS = [
    *PRESETS.values(),
    HashSpec(max_gram=4, continuation="strip", seed=2**64 - 1, scale=0.1),
    HashSpec(bucket_size=500_000, short_tokens="zero", whole_token_width=16),
]
CHANGES = [
    pytest.param(changes, id=",".join(changes), marks=[pytest.mark.slow] * (changes != {}))
    for changes in (
        {},
        {"embedding": "table", "scan_layers": True, "num_hidden_layers": 2},
        {"embedding": "random_hash"},
        {"hash_width": 200},
        {"embedding": "table", "architecture": "distilbert", "type_vocab_size": 0},
        {
            "num_hidden_layers": 4,
            "num_hidden_groups": 2,
            "adapter_size": 8,
            "embedding_size": 16,
            "pooling": "cls",
        },
    )
]

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: it runs the page's script"
)


def model_of(kind="classify", labels=("no", "yes"), pairs=False, **changes) -> Model:
    task = TaskRecord("wnli", kind, labels, pairs, max_length=12, mean=2.5, std=1.5)
    fields = dict(vocab_size=VOCABULARY.size, num_labels=max(len(labels), 1), hidden_dropout_prob=0.0)
    config = sized("micro", **{**fields, "attention_probs_dropout_prob": 0.0, **changes})
    return Model(
        path=Path("a"),
        config=config,
        vocabulary=VOCABULARY,
        params=params_of(model_class(task)(config)),
        constants=jax.device_put(bert.constants(config, VOCABULARY)),
        lowercase=True,
        step=1,
        task=task,
    )


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.fingerprint)
def test_the_bits_of_the_hash(spec):
    tokens = [*VOCABULARY.tokens, "a", "##a", "naïve", "🙂🙃", "x" * 40]
    fields = {**spec.to_dict(), "seed": str(spec.seed), "widths": spec.widths(64), "scale": spec.scale}
    bits = (
        "value[1].map((token) => Array.from(new Uint32Array(new E.Hash(value[0], 64).vector(token).buffer)))"
    )
    actual = in_node(bits, [fields, tokens])
    np.testing.assert_array_equal(actual, hash_table(spec, tokens, 64).view(np.uint32))


@pytest.mark.slow
def test_the_bits_of_the_hash_of_a_real_vocabulary(vocabulary_file):
    vocabulary = load_vocabulary(vocabulary_file)
    fields = {**HashSpec().to_dict(), "seed": "42", "widths": HashSpec().widths(128), "scale": None}
    sums = """((hash) => value[1].map((token) => new Uint32Array(hash.vector(token).buffer).reduce(
        (sum, bits, i) => (sum + Math.imul(bits, 2 * i + 1)) >>> 0, 0)))(new E.Hash(value[0], 128))"""
    table = hash_table(HashSpec(), vocabulary.tokens, 128).view(np.uint32)
    odd = 2 * np.arange(128, dtype=np.uint32) + 1
    actual = in_node(sums, [fields, list(vocabulary.tokens)])
    np.testing.assert_array_equal(actual, (table * odd).sum(axis=1, dtype=np.uint32))
    swapped = table[:, ::-1]
    assert ((swapped * odd).sum(axis=1, dtype=np.uint32) != actual).mean() > 0.9  # the sum sees their order


@pytest.mark.parametrize("is_fast", [True, False])
def test_products_of_any_size(is_fast):
    random = np.random.default_rng(0)
    cases, expected = [], []
    for length, inputs, outputs in [(1, 6, 4), (4, 8, 1), (5, 7, 3), (130, 128, 2), (9, 130, 40), (6, 4, 5)]:
        x, kernel = random.normal(size=(length, inputs)), random.normal(size=(outputs, inputs))
        for bias in (None, random.normal(size=outputs)):
            expected.append(x @ kernel.T + (0 if bias is None else bias))
            case = [x.ravel(), kernel.ravel(), bias]
            cases.append(
                [*(part if part is None else part.tolist() for part in case), length, inputs, outputs]
            )
    found = in_node(
        """((E) => [E.isFast, value.cases.map(([x, kernel, bias, length, inputs, outputs]) => {
            const layer = { kernel: Float32Array.from(kernel), bias, inputs, outputs };
            return Array.from(E.dense(Float32Array.from(x), length, layer));
        })])(value.isFast ? E : new Function("WebAssembly", `${value.script}; return Eelbert`)(undefined))""",
        {"isFast": is_fast, "script": page.web_file(page.SCRIPT), "cases": cases},
    )
    assert found[0] == is_fast
    for ours, theirs in zip(found[1], expected, strict=True):
        np.testing.assert_allclose(ours, theirs.ravel(), atol=1e-4)


@pytest.mark.parametrize("changes", CHANGES)
def test_vectors_and_logits(changes):
    model = model_of(**changes)
    found = in_node(
        """((model) => value[1].map((text) => [model.embed(text), model.logits(text)].map(
            (x) => Array.from(x))))(new E.Model(value[0]))""",
        [page.web_model(model, "float32"), TEXTS],
    )
    expected = [
        model.encode(TEXTS),
        [list(answer.probabilities.values()) for answer in model.classify(TEXTS)],
    ]
    actual = [np.array([vector for vector, _ in found]), np.array([logits for _, logits in found])]
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(jax.nn.softmax(actual[1]), expected[1], atol=1e-5)
    assert np.std(expected[1], axis=0).min() > 1e-4  # texts are told apart


@pytest.mark.parametrize(
    ("kind", "labels"), [("classify", ("no", "yes")), ("multilabel", ("no", "yes")), ("regress", ())]
)
def test_pairs_and_numbers(kind, labels):
    model = model_of(kind, labels, pairs=True)
    second = TEXTS[::-1]
    found = in_node(
        "((model) => value[1].map((text, i) => model.classify(text, value[2][i])))(new E.Model(value[0]))",
        [page.web_model(model, "float32"), TEXTS, second],
    )
    answers = model.classify(TEXTS, second)
    if kind == "regress":
        np.testing.assert_allclose(found, [answer.score for answer in answers], atol=1e-5)
        assert np.std(found) > 1e-3
    else:
        assert [list(answer) for answer in found] == [list(answer.probabilities) for answer in answers]
        expected = [list(answer.probabilities.values()) for answer in answers]
        np.testing.assert_allclose([list(answer.values()) for answer in found], expected, atol=1e-5)


def test_int8_is_near():
    model = model_of()
    found = in_node(
        "((model) => value[1].map((text) => Array.from(model.embed(text))))(new E.Model(value[0]))",
        [page.web_model(model), TEXTS],
    )
    difference = np.abs(np.array(found) - model.encode(TEXTS)).max()
    assert 1e-4 < difference < 0.1


@pytest.mark.parametrize("max_length", [5, 6, 12])
def test_pairs_are_cut_as_in_training(max_length):
    model = model_of(pairs=True)
    model = dataclasses.replace(model, task=dataclasses.replace(model.task, max_length=max_length))
    sides = [" ".join(["the"] * length) for length in range(9)]
    first, second = zip(*[(a, b) for a in sides for b in sides], strict=True)
    rows = "((model) => value[1].map((text, i) => model.row(text, value[2][i])))(new E.Model(value[0]))"
    found = in_node(rows, [page.web_model(model), first, second])
    encoded = encode_texts(first, second, VOCABULARY, max_length)
    assert [row["ids"] for row in found] == [ids.tolist() for ids in encoded.ids]
    assert [sum(row["types"]) for row in found] == encoded.segment_lengths[:, 1].tolist()


def test_texts_without_end_and_without_letters():
    model = dataclasses.replace(model_of(), task=None)
    texts = [
        "",
        "run " * 510,
        "run " * 511,
        "the runs " * 5_000,
        "שלום run السلام",
        "👩‍👩‍👧 🏳️‍🌈 run",
        "\u202erun\u202c",
    ]
    row = "((model) => value[1].map((text) => model.row(text).ids))(new E.Model(value[0]))"
    encoded = encode_texts(texts, None, VOCABULARY, 512)
    assert in_node(row, [page.web_model(model), texts]) == [ids.tolist() for ids in encoded.ids]
    assert encoded.truncated.tolist() == [False, False, True, True, False, False, False]


LETTERS = strategies.characters(codec="utf-8", exclude_categories=["Cn", "Cs"])


@hypothesis.settings(max_examples=1, deadline=None)
@hypothesis.given(strategies.lists(strategies.text(LETTERS, max_size=30), min_size=300, max_size=300))
def test_any_text_is_read_alike(texts):
    """Against the library that reads the text in training; one process of node reads many texts."""
    letters = sorted({letter for text in texts for letter in text if letter.strip()})
    vocabulary = Vocabulary(
        tuple(dict.fromkeys([*SPECIAL_TOKENS, *letters[::2], *(f"##{x}" for x in letters[::3])]))
    )
    for lowercase in (True, False):
        tokenize = "value[1].map((text) => new E.Tokenizer(value[0], value[2]).tokenize(text))"
        actual = in_node(tokenize, [list(vocabulary.tokens), texts, lowercase])
        tokenizer = make_tokenizer(vocabulary, lowercase)
        assert actual == [row.ids for row in tokenizer.encode_batch(texts)]


def test_a_page_that_answers_otherwise_is_refused():
    model = model_of()
    text = page.model_page(model, "A model")
    assert "0 of 5 answers changed" in page.check_page(text, model, TEXTS, None)
    bent = text.replace("1 / Math.sqrt(variance", "2 / Math.sqrt(variance")
    with pytest.raises(UserError, match="answers otherwise"):
        page.check_page(bent, model, TEXTS, None)
    with pytest.raises(UserError, match="Node does not run the page"):
        page.check_page(text.replace("class Hash", "class Nothing"), model, TEXTS, None)


def test_a_tagger_and_a_pair_of_encodings_are_refused():
    with pytest.raises(UserError, match="no place for a tagger"):
        page.web_model(model_of("tag", ("O", "B-x")))
    model = model_of()
    task = dataclasses.replace(model.task, reads_pairs=True, pair_encoder="bi")
    with pytest.raises(UserError, match="pair_encoder=bi"):
        page.web_model(dataclasses.replace(model, task=task))


def test_the_page_holds_what_its_vocabulary_says():
    model = model_of()
    text = page.model_page(model, "A <title>")
    assert "https://" not in text.replace("https://www.w3.org", "")  # nothing is fetched
    assert text.count("</script>") == 2
    assert "A &lt;title&gt;" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed: it opens the page")
def test_the_page_answers_in_a_browser_from_the_disk(tmp_path):
    model = model_of()
    path = tmp_path / "page.html"
    path.write_text(page.model_page(model, "A model"), encoding="utf-8")
    rows = re.findall(r"<li><b>(.*?)</b><span>(.*?)</span>", shown_in_browser(path))
    shown = {html.unescape(name): float(value) for name, value in rows}
    (answer,) = model.classify(["A warm and funny film, beautifully played."])
    assert shown["yes"] == pytest.approx(answer.probabilities["yes"], abs=0.02)  # int8
    assert {"plaing", "plyaing", "playying", "running"} <= set(shown)
