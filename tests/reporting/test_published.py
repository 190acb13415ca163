"""What is published, checked against itself."""

import pytest

from eelbert_jax.reporting import published, scores


def test_published_averages_are_the_means_of_the_published_figures():
    """Checks the averaging and the data against each other; the tables round to three decimals."""
    for model, by_name in published.AVERAGE_SCORES.items():
        for name, figure in by_name.items():
            found = scores.average(
                lambda task, metric, model=model: published.SCORES[model][task, metric].value,
                published.AVERAGES[name],
            )
            assert found.value == pytest.approx(figure.value, abs=6e-4), (model, name)


def test_unverified_marks_stay_with_their_figures():
    weak = {
        model for model, figures in published.SCORES.items() if {f.mark for f in figures.values()} == {"r"}
    }
    assert weak == {"EELBERT-tiny", "UNO-EELBERT"}
    assert published.weakest(["P", "R"]) == "R"
    assert published.weakest(["r", "P"]) == "r"
    assert published.score("UNO-EELBERT", "cola", "matthews_correlation") is None
    assert published.score(None, "sst2", "accuracy") is None
