"""The quickstart: its figures are computed, its answers the model's, its steps those of the jobs."""

import json
import re

import numpy as np
import pytest

from eelbert_jax.__main__ import main
from eelbert_jax.jobs import quickstart


def test_size_lines_have_the_papers_counts():
    text = "\n".join(quickstart.size_lines(8192))
    assert "312,506  1.25 MB    4,416,698 17.67 MB" in text


@pytest.mark.parametrize(
    ("after", "expected"), [(5.5, "0.500 below the entropy"), (6.5, "NOT below the entropy")]
)
def test_verdict_is_not_always_good(after, expected):
    lines = quickstart.loss_lines(quickstart.Outcome(9.0, after, 6.0))
    assert expected in lines[-1]


def test_from_text_to_answers_and_again(tmp_path, capsys):
    draw = np.random.default_rng(0)
    verbs, nouns = ["opens", "reads", "closes"], ["file", "table", "stream", "socket"]
    documents = [
        " ".join(f"the {draw.choice(nouns)} {draw.choice(verbs)} a {draw.choice(nouns)}." for _ in range(30))
        for _ in range(40)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents))
    argv = [
        "quickstart",
        f"--workdir={tmp_path / 'run'}",
        f"--config.prepare.source={tmp_path / 'text.txt'}",
        "--config.prepare.train_vocabulary.size=320",
        "--config.prepare.row_length=32",
        "--config.prepare.workers=1",
        "--config.prepare.held_out.fraction=0.2",
        "--config.pretrain.model.hidden_size=32",
        "--config.pretrain.model.intermediate_size=64",
        "--config.pretrain.model.num_hidden_layers=1",
        "--config.pretrain.data.eval_batch_size=16",
        "--config.pretrain.total_steps=40",
        "--config.pretrain.opt.warmup_steps=5",
        "--config.pretrain.eval_every_steps=40",
        "--config.pretrain.checkpoint_every_steps=40",
        "--config.pretrain.log_every_steps=10",
        "--config.sentences=('the file opens a [MASK].',)",
    ]
    assert main(argv) == 0
    first = capsys.readouterr().out
    assert '"running": ' in first
    assert "the file opens a [MASK]." in first
    assert (tmp_path / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (tmp_path / "run/model/metrics.jsonl").read_text().splitlines()]
    losses = [record["heldout_loss"] for record in records if "heldout_loss" in record]
    assert losses[-1] < losses[0]
    assert f"loss before      {losses[0]:.3f}" in first
    near, far = re.findall(r"(-?\d\.\d\d)  (?:Someone|The return)", first)
    assert float(near) > float(far) + 0.2
    assert f"loss after       {losses[-1]:.3f}" in first

    assert main(argv) == 0
    again = capsys.readouterr().out
    assert "is finished: nothing to do." in again

    def result(text):
        return [line for line in text.partition("\nResult")[2].splitlines() if "  time " not in line]

    assert result(again) == result(first)
