"""The tables of the report, checked by hand: what is measured, what lacks, what means nothing."""

import pytest

from eelbert_jax.reporting import claims, pretraining, published, runs, scores, tables
from eelbert_jax.reporting.text import Table, markdown, tell_apart
from support.run_folders import collect, result, write_own


def cells(table, line):
    """Return the cells of one line of a table, by its columns where those are unique."""
    (found,) = [row for row in table.rows if row[0] == line]
    return list(found)


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


def test_a_complete_score_is_printed_and_an_incomplete_one_says_what_is_missing(tmp_path):
    values = {"sst2": 0.8, "mrpc": 0.7, "qqp": 0.75, "qnli": 0.6, "rte": 0.55}
    mnli = {"accuracy": 0.5, "accuracy_mismatched": 0.6}
    several = [result(task=task, metrics=value) for task, value in values.items()]
    several += [result(task="mnli", metrics=mnli), result("UNO-EELBERT", metrics=0.6)]
    found = collect(tmp_path, *several)
    table = tables.comparison("T", published.TABLE_2_MODELS, found.models, found)
    six = (0.8 + 0.7 + 0.75 + 0.6 + 0.55 + 0.55) / 6
    majority = (0.5 + 0.684 + 0.63 + 0.35 + 0.5 + 0.53) / 6
    line = cells(table, "Score, mean of 6 tasks")
    assert line[1:4] == [f"{majority:.3f}", f"{six:.3f} (of medians {six:.3f})", "0.671 [R]"]
    assert line[4] == "**missing**: MRPC, QQP, MNLI, QNLI, RTE"
    assert line[5] == "0.632 [r]"
    assert cells(table, "Score, mean of 8 tasks")[2] == "**missing**: CoLA, STS-B"
    present = cells(table, tables.PRESENT)
    reported = (0.821 + 0.616 + 0.545 + 0.684 + 0.780 + (0.577 + 0.581) / 2) / 6
    assert present[2:4] == [f"{six:.3f} (6 of 8 tasks)", f"{reported:.3f} [R]"]
    assert present[4:6] == ["0.600 (1 of 8 tasks)", "0.701 [r]"]
    notes = "\n".join(table.notes)
    assert "**Missing** of BERT-tiny: CoLA, STS-B. Not measured, not scored." in notes
    assert "**The means of the tasks present are over different tasks: do not compare them.**" in notes
    assert "**No run here of BERT-mini, EELBERT-mini, EELBERT-tiny**" in notes


def test_seeds_summarized_beside_what_is_reported(tmp_path):
    several = [result(metrics=value, seed=seed) for seed, value in enumerate((0.78, 0.84, 0.81))]
    several += [result("bag of words", metrics=0.79)]
    found = collect(tmp_path, *several)
    table = tables.comparison("T", published.TABLE_2_MODELS, found.models, found)
    assert table.columns == ("", "majority class", "bag of words", "BERT-tiny, measured here", "reported")
    assert cells(table, "SST-2, accuracy") == [
        "SST-2, accuracy",
        "0.500",
        "0.790 (n=1)",
        "0.810 ± 0.030 (median 0.810, n=3)",
        "0.821 [R]",
    ]
    assert cells(table, "QNLI, accuracy")[-2:] == ["**missing**", "0.616 [R]"]


def test_what_means_nothing_is_flagged(tmp_path):
    majority = {"accuracy": 0.684, "f1": 0.812}
    several = [result(task="mrpc", metrics=majority, seed=seed, degenerate=seed == 1) for seed in range(2)]
    several += [result("UNO-EELBERT", "mrpc", {"accuracy": 0.69, "f1": 0.80})]
    found = collect(tmp_path, *several)
    table = tables.comparison("T", published.TABLE_2_MODELS, found.models, found)
    assert cells(table, "MRPC, accuracy")[2].endswith("†‡")
    assert cells(table, "MRPC, accuracy")[4] == "0.690 (n=1)"
    assert cells(table, "MRPC, F1")[4] == "0.800 (n=1)‡"
    assert cells(table, "MRPC, F1")[5] == "0.812 [r]‡"


def test_ratios_by_hand(tmp_path):
    several = [result(metrics=value, seed=seed) for seed, value in enumerate((0.7, 0.8, 0.81))]
    several += [result("UNO-EELBERT", metrics=value, seed=seed) for seed, value in enumerate((0.6, 0.9))]
    several += [result(task="cola", metrics=-0.1), result("UNO-EELBERT", "cola", 0.2)]
    several += [result(task="rte", metrics=0.5), result("UNO-EELBERT", "rte", 0.6)]
    found = collect(tmp_path, *several)
    table, lines = claims.ratios(found)
    by_line = {ratio.line: ratio for ratio in lines}
    assert by_line["SST-2, accuracy"].measured == pytest.approx(0.75 / 0.8)
    assert by_line["SST-2, accuracy"].has_signal
    assert by_line["SST-2, accuracy"].reported == (pytest.approx(0.701 / 0.821), "r")
    assert by_line["CoLA, Matthews"].measured is None
    assert not by_line["RTE, accuracy"].has_signal
    assert cells(table, "RTE, accuracy")[1] == "1.200‡"
    common = by_line[f"{claims.COMMON}: CoLA, SST-2, RTE"]
    assert common.measured == pytest.approx((0.2 + 0.75 + 0.6) / (-0.1 + 0.8 + 0.5))
    assert not any("Score" in line for line in by_line), "an incomplete score has no ratio"


def test_ratios_of_unequal_budgets_are_named_and_left_out(tmp_path):
    short = {"workdir": "runs/short", "step": 10, "tokens": 1_000_000, "heldout_loss": 7.0}
    found = collect(tmp_path, result(), result("UNO-EELBERT", pretrained=short))
    table, lines = claims.ratios(found)
    assert not lines
    assert "unequal numbers of tokens: UNO-EELBERT 1.0M, BERT-tiny 20.5M" in table.notes[0]


def test_pipes_in_names_do_not_break_a_table():
    assert markdown(Table("T", ("a",), (("x|y",),))).splitlines()[-1] == r"| x\|y |"


def test_names_grow_only_where_others_have_the_same():
    assert tell_apart([("a", "x/a"), ("b", "x/b"), ("a", "y/a")]) == ["x/a", "b", "y/a"]
    assert tell_apart([("a",), ("a", "a (1)", "a (2)"), ("a", "a (1)", "a (3)")]) == ["a", "a (2)", "a (3)"]
    assert tell_apart([]) == []


def test_held_out_rows_of_one_folder_name_are_told_apart():
    rows = [("old/rows", None), ("new/rows", None), ("new/rows", 64), ("other", 64)]
    assert pretraining.baseline_names(dict.fromkeys(rows)) == [
        "old/rows, all rows",
        "new/rows, all rows",
        "rows, 64 rows",
        "other",
    ]


def test_an_own_task_has_a_table_with_the_best_model_first(tmp_path):
    for seed, value in enumerate((0.7, 0.9)):
        write_own(tmp_path, f"tuned{seed}", "train.csv", "dev.csv", value, seed=seed)
    bag = {"name": "bag of words", "size": None, "embedding": None, "parameters": 9}
    write_own(tmp_path, "bag", "train.csv", "dev.csv", 0.5, model=bag, pretrained=None)
    (table,) = tables.own_tasks(scores.collect(runs.find_runs(str(tmp_path)).finetuning, ()))
    assert table.title == "train.csv"
    assert table.columns == ("", "accuracy")
    assert table.rows == (
        ("majority class", "0.500"),
        ("BERT-tiny", "**0.800 ± 0.141 (median 0.800, n=2)**"),
        ("bag of words", "0.500 (n=1)‡"),
    )
    assert table.notes[0] == "Examples: 1,000 of train, 100 of dev. accuracy chose the best step."
