"""Which models no smaller one beats, and how that is shown."""

from matplotlib.figure import Figure

from eelbert_jax.reporting import pareto
from eelbert_jax.reporting.pareto import Point, front, pareto_table, plot_pareto


def point(num_bytes, score, weights="int8"):
    return Point("mine", "accuracy", f"run-{num_bytes}", "UNO-EELBERT", weights, num_bytes, score)


def test_the_front_is_what_no_smaller_or_equal_model_reaches():
    small, large = point(10, 0.5), point(40, 0.8)
    beaten = [point(20, 0.5), point(10, 0.4), point(50, 0.7)]
    assert front([large, *beaten, small]) == [small, large]


def test_the_table_marks_it_and_the_picture_is_drawn(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pareto, "Figure", lambda **options: drawn.append(Figure(**options)) or drawn[0])
    points = [point(4_000_000, 0.7, "float32"), point(1_000_000, 0.8)]
    rows = pareto_table(points).rows
    assert [(row[3], row[-1]) for row in rows] == [("1.000", "*"), ("4.000", "")]
    plot_pareto([points], tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size > 1000
    texts = [label.get_text() for label in drawn[0].axes[0].get_xticklabels(which="both")]
    assert {"1", "2"} <= set(texts)
    assert not any("$" in text for text in texts)
