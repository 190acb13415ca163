"""Submissions to GLUE that `eelbert predict` writes."""

import numpy as np
import pytest

from eelbert_jax.datasets import submission
from eelbert_jax.errors import UserError
from eelbert_jax.jobs import predict
from support.models import NLI_LABELS, save_finetuned
from support.predictions import one_by_one, run


@pytest.fixture
def glue(tmp_path, monkeypatch):
    """Make a GLUE folder of few test rows, and let the submission be as short."""
    for folder, header, rows in (
        ("SST-2", "index\tsentence", ["0\tthe file opens .", "1\ta table", "2\trunning"]),
        ("diagnostic", "index\tsentence1\tsentence2", ["0\tthe file\ta table", "1\ta file\tthe table"]),
    ):
        (tmp_path / "glue" / folder).mkdir(parents=True)
        name = "test.tsv" if folder == "SST-2" else "diagnostic.tsv"
        (tmp_path / "glue" / folder / name).write_text("\n".join([header, *rows]) + "\n")
    monkeypatch.setenv("EELBERT_DATA", str(tmp_path))
    monkeypatch.setattr(submission, "SUBMISSION_ROWS", {"SST-2.tsv": 3, "AX.tsv": 2})


def test_submission_holds_the_models_classes(sst2, mnli, glue, tmp_path, capsys):
    said = run(capsys, f"--checkpoint={sst2}", "--glue_split=test", f"--workdir={tmp_path / 'out'}")
    assert said.strip() == str(tmp_path / "out" / "SST-2.tsv")
    best = np.argmax(one_by_one(sst2, ["the file opens .", "a table", "running"]), axis=-1)
    lines = (tmp_path / "out" / "SST-2.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{i}\t{label}" for i, label in enumerate(best))]
    run(capsys, f"--checkpoint={mnli}", "--glue_split=ax", f"--workdir={tmp_path / 'out'}")
    best = np.argmax(one_by_one(mnli, ["the file", "a file"], ["a table", "the table"]), axis=-1)
    lines = (tmp_path / "out" / "AX.tsv").read_text().splitlines()
    assert lines[1:] == [f"{i}\t{NLI_LABELS[label]}" for i, label in enumerate(best)]


def test_submissions_that_cannot_be_are_refused(sst2, glue, tmp_path):
    save_finetuned(tmp_path / "other", "sst2", "classify", ("positive", "negative"))
    for checkpoint, words, said in (
        (sst2, ("--glue_split=dev", f"--workdir={tmp_path}"), "takes no predictions for sst2, 'dev'"),
        (sst2, ("--glue_split=test",), "goes with --workdir=DIR and no text"),
        (sst2, ("--glue_split=test", f"--workdir={tmp_path}", "--text=the"), "and no text"),
        (tmp_path / "other", ("--glue_split=test", f"--workdir={tmp_path}"), "in another order than the"),
    ):
        with pytest.raises(UserError, match=said):
            predict.main([f"--checkpoint={checkpoint}", *words])
