"""Answers of `eelbert predict`, and those of the model to each text alone."""

import io
import json
import sys

import numpy as np

from eelbert_jax.__main__ import main
from eelbert_jax.inference.load import load
from support.models import logits_alone


def run(capsys, *words):
    assert main(["predict", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def records(capsys, *words):
    return [json.loads(line) for line in run(capsys, *words, "--json").splitlines()]


def one_by_one(workdir, texts, seconds=None):
    """Return the logits of each text alone."""
    model = load(workdir)
    return np.array(
        [logits_alone(model, *pair) for pair in zip(texts, seconds or [None] * len(texts), strict=True)]
    )


def stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
