"""The tables of the report, checked by hand: what is measured, what lacks, what means nothing."""

from eelbert_jax.reporting import published, runs, scores, tables
from support.run_folders import (
    cells,
    collect,
    result,
    write_own,
)


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


def test_what_a_test_file_gave_stands_beside_the_development_set(tmp_path):
    for seed, value in enumerate((0.6, 0.8)):
        found = {"test_metrics": {"accuracy": value}}
        write_own(tmp_path, f"tuned{seed}", "train.csv", "dev.csv", 0.9, seed=seed, **found)
    bag = {"name": "bag of words", "size": None, "embedding": None, "parameters": 9}
    write_own(tmp_path, "bag", "train.csv", "dev.csv", 0.7, model=bag, pretrained=None)
    (table,) = tables.own_tasks(scores.collect(runs.find_runs(str(tmp_path)).finetuning, ()))
    assert table.columns == ("", "accuracy", "test accuracy")
    assert [row[2] for row in table.rows] == ["-", "0.700 ± 0.141 (median 0.700, n=2)", "-"]
