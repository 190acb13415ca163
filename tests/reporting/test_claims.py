"""Shares of scores, by hand."""

import pytest

from eelbert_jax.reporting import claims
from support.run_folders import (
    cells,
    collect,
    result,
)


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
