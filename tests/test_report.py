"""The report: every figure from the files that runs left, checked by hand; what is missing is named."""

import csv
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.errors import UserError
from eelbert_jax.hash_spec import HashSpec
from eelbert_jax.jobs.report import report
from eelbert_jax.model.config import sized
from eelbert_jax.reporting import glue_tables, models, published, ratio_tables, runs, scores
from eelbert_jax.reporting.text import Table, markdown
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

GOLDEN = Path(__file__).parent / "golden" / "report.md"
MODELS = {
    "BERT-tiny": ("tiny", "table", 4_386_178),
    "EELBERT-tiny": ("tiny", "ngram_hash", 479_362),
    "UNO-EELBERT": ("uno", "ngram_hash", 281_986),
    "BERT-tiny (random_hash)": ("tiny", "random_hash", 479_362),
    "BERT-tiny (hash_initialized)": ("tiny", "hash_initialized", 4_386_178),
    "BERT-base": ("base", "table", 109_483_778),
    "bag of words": (None, None, 30_523),
}
MAJORITY = {
    "cola": {"matthews_correlation": 0.0},
    "sst2": {"accuracy": 0.5},
    "mrpc": {"accuracy": 0.684, "f1": 0.812},
    "stsb": {"pearson": 0.0, "spearman": 0.0},
    "qqp": {"accuracy": 0.63, "f1": 0.0},
    "mnli": {"accuracy": 0.35, "accuracy_mismatched": 0.35},
    "qnli": {"accuracy": 0.5},
    "rte": {"accuracy": 0.53},
    "wnli": {"accuracy": 0.56},
    "qqp_sample": {"accuracy": 0.63, "f1": 0.0},
}


def result(model="BERT-tiny", task="sst2", metrics=0.8, seed=0, **changes):
    """Return a result.json; a single number stands for all metrics of the task."""
    size, embedding, parameters = MODELS[model]
    if not isinstance(metrics, dict):
        metrics = dict.fromkeys(MAJORITY[task], metrics)
    start = {"workdir": f"runs/{size}-{embedding}", "step": 1000, "tokens": 20_480_000, "heldout_loss": 6.4}
    return {
        "task": task,
        "official": task != "qqp_sample",
        "split": "dev",
        "model": {"name": model, "size": size, "embedding": embedding, "parameters": parameters},
        "pretrained": start if size else None,
        "seed": seed,
        "learning_rate": 3e-4,
        "batch_size": 32,
        "num_epochs": 4,
        "selection": f"best dev step by {list(metrics)[:1]}",
        "best_step": 600,
        "total_steps": 800,
        "metrics": metrics,
        "final_metrics": metrics,
        "majority": MAJORITY.get(task, {}),
        "degenerate": False,
        "num_examples": {"train": 1000, "dev": 100},
        "truncated": 0,
        "seconds": 90.0,
        "hardware": "cpu",
        "commit": "0123456789abcdef",
    } | changes


def write_results(folder, *results):
    """Write each result into a folder of its own and return the folder of all."""
    for number, values in enumerate(results):
        run = folder / f"{number:03d}"
        run.mkdir(parents=True, exist_ok=True)
        (run / "result.json").write_text(json.dumps(values))
    return folder


def collect(folder, *results):
    """Return the models of some results."""
    return scores.collect(runs.find_runs(str(write_results(folder, *results))).finetuning, ())


def write_rows(folder):
    """Write prepared rows of 8 tokens by hand: held out, half the words are the same."""
    import numpy as np

    vocabulary = Vocabulary((*SPECIAL_TOKENS, "a", "b", "c"))
    heldout = np.array([[2, 5, 5, 5, 6, 6, 7, 3], [2, 5, 5, 5, 6, 7, 7, 3]], "<u2")
    splits = {}
    for split, rows in (("train", heldout), ("heldout", heldout)):
        (folder / split).mkdir(parents=True)
        (folder / split / "000000.bin").write_bytes(rows.tobytes())
        shard = {"file": f"{split}/000000.bin", "num_rows": len(rows), "sha256": ""}
        splits[split] = {"num_rows": len(rows), "shards": [shard]}
    save_vocabulary(vocabulary, folder / "vocab.txt")
    manifest = {
        "format_version": 1,
        "row_length": 8,
        "dtype": "<u2",
        "vocabulary": {"file": "vocab.txt", "size": vocabulary.size, "fingerprint": vocabulary.fingerprint},
        "splits": splits,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_pretraining(folder, rows, size="tiny", embedding="table", total_steps=20, **hash_changes):
    """Write the config and the metrics of a pre-training run that went to step 20."""
    folder.mkdir(parents=True)
    identity = models.published_identity(size, embedding)
    spec = HashSpec(**hash_changes).to_dict()
    identity["hash"] = None if embedding == "table" else spec
    config = {
        "recipe": f"{size},embedding={embedding}",
        "mlm_probability": 0.15,
        "batch_size": 16,
        "seed": 0,
        "total_steps": total_steps,
        "model": {"embedding": embedding},
        "opt": {"learning_rate": 1e-3},
        "data": {"rows": str(rows), "eval_rows": None},
        "run": {"identity": {"model": identity}, "devices": ["cpu"], "commit": "0123456789abcdef"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    records = [
        {"step": 0, "heldout_loss": 9.0, "heldout_accuracy": 0.0, "heldout_perplexity": 8103.1},
        {"step": 10, "train_loss": 8.0, "grad_norm": 1.0, "tokens_per_second": 128.0},
        {"step": 20, "train_loss": 7.0, "grad_norm": 1.0, "tokens_per_second": 64.0},
        {"step": 20, "heldout_loss": 1.0, "heldout_accuracy": 0.25, "heldout_perplexity": 2.718},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


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


# Models


@pytest.mark.parametrize(
    ("size", "embedding", "masked_lm", "two_class"),
    [
        ("base", "table", 109_514_298, 109_483_778),
        ("base", "ngram_hash", 86_073_402, 86_042_882),
        ("mini", "ngram_hash", 3_387_962, 3_357_442),
        ("tiny", "table", 4_416_698, 4_386_178),
        ("uno", "ngram_hash", 312_506, 281_986),
    ],
)
def test_counts_without_jax_are_the_published_ones(size, embedding, masked_lm, two_class):
    counts = models.parameter_counts(models.published_identity(size, embedding))
    assert counts == {"MLM": masked_lm, "2-class": two_class}


def test_counts_without_jax_are_those_of_the_model():
    from eelbert_jax.jobs.models import identity
    from eelbert_jax.jobs.sizes import count_parameters

    vocabulary = Vocabulary((*SPECIAL_TOKENS, "a", "b"))
    for embedding in ("table", "random_hash", "hash_initialized"):
        config = sized("micro", vocab_size=vocabulary.size, embedding=embedding, max_position_embeddings=9)
        counted = models.parameter_counts(identity(config, vocabulary, lowercase=True)["model"])
        built = count_parameters(config)
        assert counted == {name: built[name] for name in ("MLM", "2-class")}


def test_another_architecture_is_not_counted():
    assert models.parameter_counts({**models.published_identity("tiny", "table"), "adapters": 48}) == {}


def test_sizes_are_found_by_their_fields():
    assert models.size_of(models.published_identity("mini", "ngram_hash")) == "mini"
    assert models.size_of({**models.published_identity("mini", "table"), "num_hidden_layers": 5}) is None


def test_hash_changes_are_named():
    assert models.hash_changes(HashSpec().to_dict()) == ()
    assert models.hash_changes(HashSpec(bucket_size=256, max_gram=2).to_dict()) == (
        "max_gram=2",
        "bucket_size=256",
    )


# Scores


def test_summary_of_seeds_by_hand():
    assert scores.summarize([0.7, 0.9, 0.8, 0.8]) == (
        pytest.approx(0.8),
        pytest.approx(statistics.stdev([7, 8, 8, 9]) / 10),
        pytest.approx(0.8),
        4,
    )
    assert scores.summarize([0.5]) == (0.5, None, 0.5, 1)
    assert (
        glue_tables.summary_text(scores.summarize([0.7, 0.75, 0.95])) == "0.800 ± 0.132 (median 0.750, n=3)"
    )
    assert glue_tables.summary_text(scores.summarize([0.5])) == "0.500 (n=1)"


def test_mnli_counts_once():
    figures = {("mnli", "accuracy"): 0.6, ("mnli", "accuracy_mismatched"): 0.8, ("rte", "accuracy"): 0.5}
    found = scores.average(lambda *key: figures.get(key), ("mnli", "rte", "qnli"))
    assert found == (pytest.approx(0.6), ("mnli", "rte"), ("qnli",))
    del figures["mnli", "accuracy_mismatched"]
    assert scores.average(lambda *key: figures.get(key), ("mnli", "rte")) == (0.5, ("rte",), ("mnli",))
    assert scores.average(lambda *_: None, ("rte",)) == (None, (), ("rte",))


def test_checkpoints_of_one_name_stay_apart(tmp_path):
    start = {"step": 1000, "tokens": None, "heldout_loss": None}
    found = collect(
        tmp_path,
        result(metrics=0.7, pretrained={**start, "workdir": "runs/short"}),
        result(metrics=0.8, pretrained={**start, "workdir": "runs/long/"}),
        result(metrics=0.9, pretrained={**start, "workdir": "runs/long"}, seed=1),
    )
    assert {model.label: model.mean("sst2", "accuracy") for model in found} == {
        "BERT-tiny (short)": pytest.approx(0.7),
        "BERT-tiny (long)": pytest.approx(0.85),
    }


def test_variants_of_a_hash_are_told_apart_by_their_checkpoint(tmp_path):
    rows = write_rows(tmp_path / "rows")
    changed = write_pretraining(tmp_path / "pre" / "small", rows, embedding="ngram_hash", bucket_size=256)
    start = {"workdir": str(changed), "step": 20, "tokens": 2560, "heldout_loss": 1.0}
    write_results(tmp_path / "tuned", result("EELBERT-tiny"), result("EELBERT-tiny", pretrained=start))
    found = runs.find_runs(f"{tmp_path / 'pre'},{tmp_path / 'tuned'}")
    collected = scores.collect(found.finetuning, found.pretraining)
    assert {model.label: model.name for model in collected} == {
        "EELBERT-tiny": "EELBERT-tiny",
        "EELBERT-tiny, bucket_size=256": None,
    }


def test_of_a_grid_the_most_seeds_come_first_then_the_best_mean(tmp_path):
    grid = [result(metrics=value, seed=seed) for seed, value in enumerate((0.70, 0.72))]
    grid += [result(metrics=value, seed=seed, batch_size=8) for seed, value in enumerate((0.74, 0.76))]
    grid += [result(metrics=0.99, batch_size=64)]
    (model,) = collect(tmp_path, *grid)
    assert len(model.tried["sst2"]) == 3
    assert model.chosen["sst2"].recipe.batch_size == 8
    assert model.mean("sst2", "accuracy") == pytest.approx(0.75)


def test_a_seed_counts_once(tmp_path):
    with pytest.raises(UserError, match=r"tree/000 and tree/001 are the same seed \(0\)"):
        collect(tmp_path / "tree", result(), result(metrics=0.9))


def test_what_a_record_does_not_say_of_its_checkpoint_the_checkpoint_does(tmp_path):
    run = write_pretraining(tmp_path / "pre", write_rows(tmp_path / "rows"))
    (start,) = [
        model.checkpoint
        for model in collect(tmp_path / "a", result(pretrained={"workdir": str(run), "step": 20}))
    ]
    assert start == (str(run), 20, 20 * 16 * 8, 1.0)
    elsewhere = {"workdir": str(tmp_path / "gone"), "step": 20}
    (start,) = [model.checkpoint for model in collect(tmp_path / "b", result(pretrained=elsewhere))]
    assert start == (elsewhere["workdir"], 20, None, None)


def test_a_pretraining_record_says_its_tokens_without_its_rows(tmp_path):
    folder = write_pretraining(tmp_path / "run", tmp_path / "rows that are elsewhere")
    assert runs.read_checkpoint(str(folder), 20) == (str(folder), 20, None, 1.0)
    config = json.loads((folder / "config.json").read_text())
    config["run"]["row_length"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    assert runs.read_checkpoint(str(folder), 20) == (str(folder), 20, 20 * 16 * 8, 1.0)
    assert runs.read_checkpoint(str(folder), 10) == (str(folder), 10, 10 * 16 * 8, None)
    assert runs.read_checkpoint(str(folder), None) == (str(folder), None, None, None)  # an imported model
    (folder / "metrics.jsonl").unlink()
    assert runs.read_checkpoint(str(folder), 20) == (str(folder), 20, None, None)


def test_other_development_sets_are_refused(tmp_path):
    smaller = result("EELBERT-tiny", num_examples={"train": 1000, "dev": 99})
    with pytest.raises(UserError, match=r"tree/000 and tree/001 measured sst2 on different development sets"):
        collect(tmp_path / "tree", result(), smaller)


def test_an_unofficial_split_is_never_the_task(tmp_path):
    (model,) = collect(tmp_path, result(task="qqp", official=False), result(task="sst2"))
    assert set(model.chosen) == {"qqp (unofficial split)", "sst2"}
    assert scores.average(model.mean, ("qqp", "sst2")).missing == ("qqp",)


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


def test_a_run_that_goes_on_is_reported_as_unfinished(tmp_path):
    rows = write_rows(tmp_path / "rows")
    run = write_pretraining(tmp_path / "runs" / "a", rows)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 30, "heldout_lo')
    (found,) = runs.find_runs(str(tmp_path / "runs")).pretraining
    assert found.curve[-1].step == 20
    fresh = write_pretraining(tmp_path / "runs" / "b", rows)
    (fresh / "metrics.jsonl").write_text("")
    text = report(str(tmp_path / "runs"), tmp_path / "out").read_text()
    assert "| - of 20 (unfinished) |" in text


def test_a_run_is_not_searched_for_runs(tmp_path):
    write_results(tmp_path, result())
    shutil.copytree(tmp_path / "000", tmp_path / "000" / "checkpoints" / "copy")
    assert len(runs.find_runs(f"{tmp_path}, {tmp_path}/0*").finetuning) == 1


def test_the_job_needs_no_jax(tmp_path):
    write_results(tmp_path / "runs", result())
    words = ["report", f"--runs={tmp_path / 'runs'}", f"--workdir={tmp_path / 'out'}"]
    code = (
        f"import sys, eelbert_jax.__main__ as m; assert m.main({words}) == 0; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    assert (tmp_path / "out" / "report.md").is_file()


# Bad input


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ("[]", "holds no JSON object"),
        (json.dumps({k: v for k, v in result().items() if k != "seed"}), "seed is missing, expected int"),
        (json.dumps(result(seed="0")), "seed is '0', expected int"),
        (json.dumps(result(degenerate=1)), "degenerate is 1, expected bool"),
        (json.dumps(result(batch_size=True)), "batch_size is True"),
        (json.dumps(result(metrics={"accuracy": float("nan")})), "metrics.accuracy is nan"),
        (json.dumps(result(metrics={"acc": 0.8})), "metrics.accuracy is missing"),
        (json.dumps(result(task="mrpc", metrics={"accuracy": 0.8})), "metrics.f1 is missing"),
        (json.dumps(result(task="custom", metrics={})), "metrics.any metric is missing"),
        (json.dumps(result(num_examples={"dev": 3})), "num_examples.train is missing"),
        (json.dumps(result(pretrained={"workdir": "x"})), "pretrained.step is missing, expected int or null"),
        (json.dumps(result(pretrained="x")), "pretrained is 'x', expected dict or null"),
    ],
)
def test_a_corrupt_result_is_named(tmp_path, text, message):
    write_results(tmp_path / "runs", result())
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "result.json").write_text(text)
    with pytest.raises(UserError, match=r"result\.json") as error:
        report(str(tmp_path / "runs"), tmp_path / "out")
    assert str(tmp_path / "runs" / "broken" / "result.json") in str(error.value)
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_torn_line_inside_the_metrics_is_named(tmp_path):
    run = write_pretraining(tmp_path / "runs" / "a", write_rows(tmp_path / "rows"))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:9], *lines[2:]]))
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is no JSON object"):
        runs.find_runs(str(tmp_path / "runs"))


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
