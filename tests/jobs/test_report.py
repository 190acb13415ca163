"""The tables of the report: every figure from files that runs left, checked by hand; what lacks is named."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.jobs.report import report
from eelbert_jax.reporting import glue_tables, published, ratio_tables, runs, scores
from eelbert_jax.reporting.text import Table, markdown
from support.run_folders import collect, result, write_pretraining, write_results, write_rows

GOLDEN = Path(__file__).parent / "golden" / "report.md"


def cells(table, line):
    """Return the cells of one line of a table, by its columns where those are unique."""
    (found,) = [row for row in table.rows if row[0] == line]
    return list(found)


# What is published


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


# Tables


def test_a_complete_score_is_printed_and_an_incomplete_one_says_what_is_missing(tmp_path):
    values = {"sst2": 0.8, "mrpc": 0.7, "qqp": 0.75, "qnli": 0.6, "rte": 0.55}
    mnli = {"accuracy": 0.5, "accuracy_mismatched": 0.6}
    several = [result(task=task, metrics=value) for task, value in values.items()]
    several += [result(task="mnli", metrics=mnli), result("UNO-EELBERT", metrics=0.6)]
    berts, baselines = glue_tables.split_baselines(collect(tmp_path, *several))
    table = glue_tables.comparison("T", published.TABLE_2_MODELS, berts, baselines)
    six = (0.8 + 0.7 + 0.75 + 0.6 + 0.55 + 0.55) / 6
    majority = (0.5 + 0.684 + 0.63 + 0.35 + 0.5 + 0.53) / 6
    line = cells(table, "Score, mean of 6 tasks")
    assert line[1:4] == [f"{majority:.3f}", f"{six:.3f} (of medians {six:.3f})", "0.671 [R]"]
    assert line[4] == "**missing**: MRPC, QQP, MNLI, QNLI, RTE"
    assert line[5] == "0.632 [r]"
    assert cells(table, "Score, mean of 8 tasks")[2] == "**missing**: CoLA, STS-B"
    present = cells(table, glue_tables.PRESENT)
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
    berts, baselines = glue_tables.split_baselines(collect(tmp_path, *several))
    table = glue_tables.comparison("T", published.TABLE_2_MODELS, berts, baselines)
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
    berts, baselines = glue_tables.split_baselines(collect(tmp_path, *several))
    table = glue_tables.comparison("T", published.TABLE_2_MODELS, berts, baselines)
    assert cells(table, "MRPC, accuracy")[2].endswith("†‡")
    assert cells(table, "MRPC, accuracy")[4] == "0.690 (n=1)"
    assert cells(table, "MRPC, F1")[4] == "0.800 (n=1)‡"
    assert cells(table, "MRPC, F1")[5] == "0.812 [r]‡"


def test_ratios_by_hand(tmp_path):
    several = [result(metrics=value, seed=seed) for seed, value in enumerate((0.7, 0.8, 0.81))]
    several += [result("UNO-EELBERT", metrics=value, seed=seed) for seed, value in enumerate((0.6, 0.9))]
    several += [result(task="cola", metrics=-0.1), result("UNO-EELBERT", "cola", 0.2)]
    several += [result(task="rte", metrics=0.5), result("UNO-EELBERT", "rte", 0.6)]
    berts, baselines = glue_tables.split_baselines(collect(tmp_path, *several))
    table, lines = ratio_tables.ratios(berts, baselines)
    found = {ratio.line: ratio for ratio in lines}
    assert found["SST-2, accuracy"].measured == pytest.approx(0.75 / 0.8)
    assert found["SST-2, accuracy"].has_signal
    assert found["SST-2, accuracy"].reported == (pytest.approx(0.701 / 0.821), "r")
    assert found["CoLA, Matthews"].measured is None
    assert not found["RTE, accuracy"].has_signal
    assert cells(table, "RTE, accuracy")[1] == "1.200‡"
    common = found[f"{ratio_tables.COMMON}: CoLA, SST-2, RTE"]
    assert common.measured == pytest.approx((0.2 + 0.75 + 0.6) / (-0.1 + 0.8 + 0.5))
    assert not any("Score" in line for line in found), "an incomplete score has no ratio"


def test_ratios_of_unequal_budgets_are_named_and_left_out(tmp_path):
    short = {"workdir": "runs/short", "step": 10, "tokens": 1_000_000, "heldout_loss": 7.0}
    berts, baselines = glue_tables.split_baselines(
        collect(tmp_path, result(), result("UNO-EELBERT", pretrained=short))
    )
    table, lines = ratio_tables.ratios(berts, baselines)
    assert not lines
    assert "unequal numbers of tokens: UNO-EELBERT 1.0M, BERT-tiny 20.5M" in table.notes[0]


def test_baselines_stand_alone_where_nothing_was_fine_tuned(tmp_path):
    folder = write_results(
        tmp_path / "runs",
        result("bag of words", metrics=0.79),
        result("bag of words", "rte", metrics=0.6),
        result("bag of words", "qqp_sample", metrics=0.7),
    )
    text = report(str(folder), tmp_path / "out").read_text()
    assert "No finished fine-tuning run" not in text
    assert "|  | majority class | bag of words |" in text
    assert "| SST-2, accuracy | 0.500 | 0.790 (n=1) |" in text
    assert "| RTE, accuracy | 0.530 | 0.600 (n=1) |" in text
    assert "| qqp_sample, accuracy | 0.630 | 0.700 (n=1) |" in text
    assert "CoLA, Matthews" not in text
    assert "**No run here of BERT-base, EELBERT-base.**" in text
    assert (tmp_path / "out" / "finetuning.png").stat().st_size > 10_000


def test_pipes_in_names_do_not_break_a_table():
    assert markdown(Table("T", ("a",), (("x|y",),))).splitlines()[-1] == r"| x\|y |"


# The job


def a_report(folder):
    """Write the runs of the golden report, and return the text."""
    rows = write_rows(folder / "rows")
    for embedding in ("table", "ngram_hash"):
        write_pretraining(folder / "runs" / f"tiny-{embedding}", rows, embedding=embedding)
    write_pretraining(
        folder / "runs" / "uno", folder / "gone", size="uno", embedding="ngram_hash", total_steps=30
    )
    values = {"BERT-tiny": 0.80, "EELBERT-tiny": 0.76, "UNO-EELBERT": 0.72, "BERT-tiny (random_hash)": 0.74}
    write_results(
        folder / "runs" / "tuned",
        *(
            result(model, task, value + 0.01 * seed - shift, seed)
            for model, value in values.items()
            for task, shift in (("sst2", 0.0), ("qqp_sample", 0.05))
            for seed in range(3)
        ),
        result("BERT-tiny", "mrpc", {"accuracy": 0.684, "f1": 0.812}, degenerate=True),
        result("BERT-tiny (hash_initialized)", metrics=0.83),
        result("bag of words", metrics=0.78),
    )
    unfinished = folder / "runs" / "tuned" / "later"
    unfinished.mkdir()
    (unfinished / "config.json").write_text(json.dumps({"task": "rte", "pretrained": None}))
    lines = [
        {"benchmark": "embedding", "case": "tiny: hash against table", "ours": 1.5, "baseline": 1.4},
        {"benchmark": "prepare", "case": "text", "ours": 4.0, "baseline": 2.0},
    ]
    with open(folder / "bench.jsonl", "w") as file:
        for line in lines:
            ratio = line["ours"] / line["baseline"]
            file.write(json.dumps({**line, "unit": "ms (smaller is better)", "ratio": ratio}) + "\n")
    path = report(str(folder / "runs"), folder / "out", str(folder / "bench.jsonl"))
    return path.read_text()


def test_golden(tmp_path):
    text = a_report(tmp_path)
    assert text == GOLDEN.read_text(), (
        f"The report has changed. If that is meant, read it, then cp {tmp_path}/out/report.md {GOLDEN}"
    )
    for name in ("pretraining.png", "finetuning.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_figures_as_csv(tmp_path):
    a_report(tmp_path)

    def read(name):
        with open(tmp_path / "out" / name, newline="") as file:
            return list(csv.DictReader(file))

    curves = [row for row in read("pretraining.csv") if row["model"] == "BERT-tiny"]
    assert [(row["step"], row["tokens"]) for row in curves] == [("0", "0"), ("20", str(20 * 16 * 8))]
    assert float(curves[1]["seconds"]) == 10 * 16 * 8 / 128 + 10 * 16 * 8 / 64
    assert float(curves[1]["unigram_accuracy"]) == 0.5
    (sst2,) = [
        row for row in read("finetuning.csv") if (row["model"], row["task"]) == ("UNO-EELBERT", "sst2")
    ]
    assert (float(sst2["mean"]), float(sst2["median"]), sst2["n"]) == (pytest.approx(0.73), 0.73, "3")
    assert (sst2["reported"], sst2["mark"], sst2["seeds"]) == ("0.701", "r", "0 1 2")
    assert all(row["of_means"] == "" for row in read("averages.csv"))
    ratio = [row for row in read("ratios.csv") if row["line"] == "SST-2, accuracy"]
    assert float(ratio[0]["measured"]) == pytest.approx(0.77 / 0.81)


def test_the_job_needs_no_jax(tmp_path):
    write_results(tmp_path / "runs", result())
    words = ["report", f"--runs={tmp_path / 'runs'}", f"--workdir={tmp_path / 'out'}"]
    code = (
        f"import sys, eelbert_jax.__main__ as m; assert m.main({words}) == 0; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "out" / "report.md").is_file()


# Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "add --runs="),
        (["--runs={tmp}/nowhere"], "No folder"),
        (["--runs={tmp}/empty"], "No run under"),
        (["--runs={tmp}/good", "--benchmarks={tmp}/nowhere.jsonl"], "Cannot read the benchmark lines"),
        (["--runs={tmp}/good", "--benchmarks={tmp}/good/000/result.json"], "benchmark is missing"),
        (["--runs={tmp}/good", "--workdir={tmp}/file/out"], "Cannot write to the workdir"),
    ],
)
def test_bad_command_lines_end_with_one_clear_line(tmp_path, capsys, words, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    write_results(tmp_path / "good", result())
    words = [word.format(tmp=tmp_path) for word in [f"--workdir={tmp_path}/out", *words]]
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


# Real runs


@pytest.mark.slow
def test_what_pretrain_leaves_is_understood(tmp_path):
    folder = tmp_path / "runs"
    text = "".join(f"The dog ran over {i} fields.\n\nThere were {i} stones.\n\n" for i in range(400))
    (tmp_path / "text.txt").write_text(text)
    prepare = [
        "--config.train_vocabulary.size=80",
        "--config.row_length=32",
        "--config.held_out.fraction=0.3",
    ]
    source = f"--config.source={tmp_path / 'text.txt'}"
    assert main(["prepare", source, *prepare, f"--workdir={tmp_path / 'rows'}"]) == 0
    for embedding in ("table", "ngram_hash"):
        words = [
            f"--config=configs/pretrain.py:micro,embedding={embedding},setting=small",
            f"--config.data.rows={tmp_path / 'rows'}",
            "--config.data.eval_batch_size=8",
            "--config.total_steps=4",
            "--config.opt.warmup_steps=1",
            "--config.eval_every_steps=2",
            "--config.log_every_steps=2",
            "--config.checkpoint_every_steps=4",
            f"--workdir={folder / embedding}",
        ]
        assert main(["pretrain", *words]) == 0
    table, hashed = runs.find_runs(str(folder)).pretraining
    assert (table.label, hashed.label) == ("BERT-micro", "EELBERT-micro")
    assert [point.step for point in hashed.curve] == [0, 2, 4]
    assert hashed.tokens_at(4) == 4 * 16 * 32
    assert hashed.parameters["MLM"] < table.parameters["MLM"]
    assert hashed.seconds > 0
    for split in ("train", "dev"):
        examples = "".join(f"{i} dogs\tgood\n{i} stones\tbad\n" for i in range(9))
        (tmp_path / f"{split}.tsv").write_text("sentence\tlabel\n" + examples)
    words = [
        "--config=configs/glue.py:micro,task=custom",
        f"--config.pretrained={folder / 'ngram_hash'}",
        f"--config.custom.train={tmp_path / 'train.tsv'}",
        f"--config.custom.dev={tmp_path / 'dev.tsv'}",
        "--config.num_epochs=1",
        f"--workdir={folder / 'tuned'}",
    ]
    assert main(["finetune", *words]) == 0
    (tuned,) = runs.find_runs(str(folder)).finetuning
    assert (tuned.task, tuned.official) == ("custom (18 dev examples)", False)
    assert tuned.checkpoint == (str(folder / "ngram_hash"), 4, 4 * 16 * 32, hashed.curve[-1].loss)
    text = report(str(folder), tmp_path / "out").read_text()
    assert "| unigram: frequencies alone (rows) |" in text
    assert "| 4 of 4 |" in text
    assert "| EELBERT-micro | custom (18 dev examples) |" in text
