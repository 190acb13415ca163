"""Pre-training runs as the report reads them."""

import json

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.jobs.report import report
from eelbert_jax.model.config import sized
from eelbert_jax.reporting import pretraining, runs
from eelbert_jax.reporting.card import model_card
from support.run_folders import (
    published_identity,
    write_pretraining,
    write_rows,
)


def test_a_recorded_model_is_counted_where_its_kind_is_known():
    identity = published_identity("tiny", "table")
    assert pretraining.parameters_of(identity)["MLM"] == 4_416_698
    assert pretraining.parameters_of({**identity, "adapters": 48}) == {}


def test_hash_changes_are_named():
    assert pretraining.hash_changes(HashSpec().to_dict()) == ()
    assert pretraining.hash_changes(HashSpec(bucket_size=256, max_gram=2).to_dict()) == (
        "max_gram=2",
        "bucket_size=256",
    )


def test_a_distilled_run_names_its_teacher(tmp_path):
    folder = write_pretraining(tmp_path / "run", write_rows(tmp_path / "rows"))
    config = json.loads((folder / "config.json").read_text())
    assert pretraining.read_pretraining(folder, config, "run").changes == ()
    config["teacher"] = {"model": "models/minilm"}
    (folder / "config.json").write_text(json.dumps(config))
    assert pretraining.read_pretraining(folder, config, "run").label.endswith(", distilled from minilm")
    card = model_card(folder, 20, sized("tiny"), None, [])
    assert "minilm's states and masked words of 2,560 tokens." in card


def test_a_pretraining_record_says_its_tokens_without_its_rows(tmp_path):
    folder = write_pretraining(tmp_path / "run", tmp_path / "rows that are elsewhere")

    def read(step):
        found = pretraining.read_checkpoint(str(folder), step)
        assert (found.workdir, found.step) == (str(folder), step)
        return found.tokens, found.heldout_loss

    assert read(20) == (None, 1.0)
    config = json.loads((folder / "config.json").read_text())
    config["run"]["row_length"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    assert read(20) == (20 * 16 * 8, 1.0)
    assert read(10) == (10 * 16 * 8, None)
    assert read(None) == (None, None)  # an imported model
    (folder / "metrics.jsonl").unlink()
    assert read(20) == (None, None)


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


def test_a_torn_line_inside_the_metrics_is_named(tmp_path):
    run = write_pretraining(tmp_path / "runs" / "a", write_rows(tmp_path / "rows"))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:9], *lines[2:]]))
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2 is no JSON object"):
        runs.find_runs(str(tmp_path / "runs"))


def test_held_out_rows_of_one_folder_name_are_told_apart():
    rows = [("old/rows", None), ("new/rows", None), ("new/rows", 64), ("other", 64)]
    assert pretraining.baseline_names(dict.fromkeys(rows)) == [
        "old/rows, all rows",
        "new/rows, all rows",
        "rows, 64 rows",
        "other",
    ]
