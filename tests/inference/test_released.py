"""The models in the package: they are there, small, answer everything, and are worth what is said."""

import json

import numpy as np
import pytest

import eelbert_jax
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import RELEASED, released_models
from eelbert_jax.jobs.evaluate import main
from eelbert_jax.workdir import PACKED_NAME

MEGABYTES = {"pocket": 1.2, "pocket-uno": 0.4}
VECTOR_SIZES = {"pocket": 384, "pocket-uno": 128}
STSB = {"pocket": 0.82, "pocket-uno": 0.75}
"""Spearman's correlation on STS-B dev that docs/models.md promises, rounded down."""


@pytest.fixture(scope="module", params=released_models())
def model(request):
    return eelbert_jax.load(request.param)


def test_what_is_in_the_box():
    assert released_models() == tuple(sorted(MEGABYTES))
    for name, limit in MEGABYTES.items():
        assert (RELEASED / name / PACKED_NAME).stat().st_size <= limit * 1e6


def test_what_means_the_same_is_near(model):
    texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell sharply."]
    vectors = model.encode(texts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.2


def test_any_text_has_a_vector(model):
    texts = [
        "",
        "...",
        "running",
        "word " * 10_000,
        "Der schnelle braune Fuchs",
        "مرحبا بالعالم",
        "😀 \u200b",
    ]
    vectors = model.encode(texts)
    assert vectors.shape == (len(texts), VECTOR_SIZES[model.path.name])
    assert np.isfinite(vectors).all()
    assert model.truncated(texts).tolist() == [False, False, False, True, False, False, False]


def test_no_model_of_that_name():
    with pytest.raises(UserError, match=r"no model 'pockets': .* comes with the package: pocket, pocket-uno"):
        eelbert_jax.load("pockets")


@pytest.mark.slow
@pytest.mark.parametrize("name", released_models())
def test_it_agrees_with_people_as_its_page_says(name, data_dir, capsys):
    main([f"--from={name}", f"--config.data.glue_dir={data_dir / 'glue'}", "--json"])
    of_words, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert STSB[name] <= found["spearman"] <= STSB[name] + 0.04
    assert of_words["model"] == "TF-IDF"
