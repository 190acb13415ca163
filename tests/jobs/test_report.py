"""The tables of the report: every figure from files that runs left, checked by hand; what lacks is named."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.jobs.report import report
from eelbert_jax.record import Start
from eelbert_jax.reporting import runs
from support.run_folders import result, write_own, write_pretraining, write_results, write_rows

GOLDEN = Path(__file__).parent / "golden" / "report.md"


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


def coloured(path):
    """Count the pixels of a picture that are neither black, white nor grey, left of its legend."""
    pixels = matplotlib.image.imread(path)[:, :, :3]
    frame = pixels[:, : int(pixels.shape[1] * 0.6)]
    return int(((frame.max(-1) - frame.min(-1)) > 0.2).sum())


def test_own_tasks_alone_are_reported_without_glues_tables(tmp_path):
    folder = tmp_path / "runs"
    write_own(folder, "films", "films/train.csv", "films/dev.csv", 0.7, data={"train": "a"})
    write_own(folder, "news", "news/train.csv", "news/dev.csv", 0.6, data={"train": "b"})
    write_own(folder, "prices", "in$^$/train.csv", "in$^$/dev.csv", 0.6, data={"train": "c"})
    text = report(str(folder), tmp_path / "out").read_text()
    assert "### films/train.csv" in text
    assert "### news/train.csv" in text
    for absent in ("GLUE", "missing", "SST-2", "Table 2", "finetuning.png", "your own tasks\n\n#"):
        assert absent not in text.partition("## Ablations")[0]
    assert not (tmp_path / "out" / "finetuning.png").exists()
    assert not (tmp_path / "out" / "averages.csv").exists()
    assert coloured(tmp_path / "out" / "own_tasks.png") > 20
    with open(tmp_path / "out" / "finetuning.csv", newline="") as file:
        found = [(row["task"], float(row["mean"]), row["n"]) for row in csv.DictReader(file)]
    assert found == [
        ("films/train.csv", 0.7, "1"),
        ("in$^$/train.csv", 0.6, "1"),
        ("news/train.csv", 0.6, "1"),
    ]


def test_own_tasks_stand_apart_from_glues(tmp_path):
    folder = tmp_path / "runs"
    write_own(folder, "films", "films/train.csv", "films/dev.csv", 0.7)
    write_results(folder / "glue", result(metrics=0.8), result(task="qqp_sample", metrics=0.6))
    text = report(str(folder), tmp_path / "out").read_text()
    glue, _, own = text.partition("## Fine-tuning on your own tasks")
    assert "films" not in glue
    assert "| BERT-tiny | films/train.csv |" in own
    assert "SST-2" not in own.partition("## Ablations")[0]


def test_a_split_that_is_not_official_is_drawn_too_and_fills_no_table_of_glue(tmp_path):
    write_results(tmp_path / "runs", result(task="qqp_sample", metrics=0.6))
    text = report(str(tmp_path / "runs"), tmp_path / "out").read_text()
    assert coloured(tmp_path / "out" / "finetuning.png") > 20
    assert "qqp_sample, accuracy" in text
    assert "missing" not in text.partition("## Ablations")[0]


# Bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "add --runs="),
        (["--runs={tmp}/nowhere"], "Nothing is at"),
        (["--runs={tmp}/empty"], "No run under"),
        (["--runs={tmp}/good", "--benchmarks={tmp}/nowhere.jsonl"], "Nothing is at"),
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
    assert (tuned.task, tuned.is_own) == (f"{tmp_path.name}/train.tsv", True)
    assert tuned.start == Start(str(folder / "ngram_hash"), 4, 4 * 16 * 32, hashed.curve[-1].loss)
    text = report(str(folder), tmp_path / "out").read_text()
    assert "| unigram: frequencies alone (rows) |" in text
    assert "| 4 of 4 |" in text
    assert f"| EELBERT-micro | {tmp_path.name}/train.tsv |" in text
