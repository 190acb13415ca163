"""The hash as an ONNX graph gives the bits of the reference, for every function."""

import dataclasses

import numpy as np
import pytest

from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, load_vocabulary
from support import exports

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from eelbert_jax.export.check import check_word_vectors, session
from eelbert_jax.export.encoder import word_vector_graph

WORDS = ("a", "##a", "##", "#", "the", "running", "##ing", "東京", "ʁaɪ", "0000", "000", "𝔘nicode", "x" * 300)
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))


def bits_agree(model, of=None):
    graph = session(word_vector_graph(of or model).SerializeToString())
    return check_word_vectors(model, graph)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bucket_size": 10**9 + 7, "max_gram": 4},
        {"bucket_size": 2**16},
        {"bucket_size": 97, "base": 98},
        {"short_tokens": "zero", "continuation": "strip"},
        {"whole_token_width": 11, "scale": 0.05},
        {"whole_token_width": 8, "bucket_size": 2**32 - 5, "split": (0, 8, 16)},
    ],
)
def test_bits_are_those_of_the_reference(changes):
    assert bits_agree(exports.model(vocabulary=VOCABULARY, hash=HashSpec(**changes)))


def test_bits_of_a_random_hash():
    assert bits_agree(exports.model(vocabulary=VOCABULARY, embedding="random_hash"))


def test_a_wide_hash_is_projected():
    assert bits_agree(exports.model(vocabulary=VOCABULARY, hash_width=96))


def test_another_function_is_noticed():
    model = exports.model(vocabulary=VOCABULARY)
    other = dataclasses.replace(model.config, hash=HashSpec(base=33))
    assert not bits_agree(model, dataclasses.replace(model, config=other))


def test_bits_of_a_published_vocabulary(vocabulary_file):
    assert bits_agree(exports.model(vocabulary=load_vocabulary(vocabulary_file)))


def test_an_id_is_read_wherever_it_stands():
    model = exports.model(vocabulary=VOCABULARY)
    graph = session(word_vector_graph(model).SerializeToString())
    ids = np.array([17, 3, 3, 0])
    (found,) = graph.run(None, {"input_ids": ids})
    np.testing.assert_array_equal(found, graph.run(None, {"input_ids": np.arange(18)})[0][ids])
