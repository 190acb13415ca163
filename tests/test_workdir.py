"""Whose a folder is: every job that fills a workdir refuses that of another, before any work."""

import json
import shutil

import pytest

from eelbert_jax import store
from eelbert_jax.__main__ import main
from eelbert_jax.errors import StoreAway, UserError
from eelbert_jax.workdir import claim, locked

JOBS = {
    "prepare": ["--config.source={text}", "--config.vocabulary={vocab}"],
    "pretrain": ["--config=configs/pretrain.py:uno"],
    "embed": ["--from={text}"],
    "distill": ["--config=configs/distill.py:embedding"],
    "distill minialbert": ["--config=configs/distill.py:minialbert"],
    "finetune": ["--config=configs/glue.py:tiny,task=rte"],
    "quickstart": [],
    "sweep": ["--config=configs/sweeps/glue.py:tiny,task=rte", "--config.pretrained={text}"],
}


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_leaves_the_folder_of_another_as_it_is(job, tmp_path, capsys):
    name, text, vocab = job.split()[0], tmp_path / "text.txt", tmp_path / "vocab.txt"
    text.write_text("some words")
    vocab.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "some", "words"]))
    other, workdir = "pretrain" if name != "pretrain" else "distill", tmp_path / "run"
    claim(workdir, other)
    (workdir / "metrics.jsonl").write_text("{}")
    (workdir / ".lock").touch()
    before = files(workdir)
    words = [word.format(text=text, vocab=vocab) for word in JOBS[job]]
    assert main([name, *words, f"--workdir={workdir}"]) == 2
    assert capsys.readouterr().err == (
        f"error: '{workdir}' holds files of {other}: give {name} another --workdir=DIR.\n"
    )
    assert files(workdir) == before


def test_a_folder_that_a_job_left_empty_is_the_next_ones(tmp_path):
    with locked(tmp_path, "embed"):
        pass
    claim(tmp_path, "prepare")
    (tmp_path / "manifest.json").write_text("{}")
    claim(tmp_path, "prepare")
    with pytest.raises(UserError, match="files of prepare: give embed"):
        claim(tmp_path, "embed")


def test_a_downloaded_model_is_not_written_over_and_a_run_without_a_mark_goes_on(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="holds files of transformers"):
        claim(tmp_path, "pretrain")
    (tmp_path / "config.json").write_text(json.dumps({"model": {}, "run": {}}))
    claim(tmp_path, "pretrain")
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    with pytest.raises(UserError, match="holds files of pretrain"):
        claim(tmp_path.with_name("copy"), "finetune")


@pytest.mark.parametrize("name", [".lock", ".job"])
def test_a_mark_that_cannot_be_opened_is_told(name, tmp_path):
    (tmp_path / name).mkdir()
    (tmp_path / "config.json").write_text("{}")
    message = f"Cannot write to the workdir '{tmp_path}': Is a directory"
    with pytest.raises(UserError, match=message), locked(tmp_path, "embed"):
        pass


def test_a_store_that_does_not_say_whose_a_folder_is_is_told(monkeypatch):
    def away(url):
        raise store.Unanswered(None, "no answer", url)

    monkeypatch.setattr(store, "listing", away)
    with pytest.raises(StoreAway, match=r"The store of gs://bucket/run failed: .*no answer"):
        claim(store.folder("gs://bucket/run"), "sweep")
