"""The record of a finished run: read back as written, old ones too; what is wrong is named."""

import dataclasses
import json

import pytest

from eelbert_jax.errors import UserError
from eelbert_jax.record import ModelRecord, Result, Start

RESULT = Result(
    task="sst2",
    official=True,
    split="dev",
    model=ModelRecord("BERT-tiny", "tiny", "table", 4_386_178),
    pretrained=Start("runs/tiny", 1000, 20_480_000, 6.4),
    seed=3,
    learning_rate=3e-4,
    batch_size=32,
    num_epochs=4,
    selection="best dev step by accuracy",
    best_step=600,
    total_steps=800,
    metrics={"accuracy": 0.75, "f1": 0.5},
    final_metrics={"accuracy": 0.7, "f1": 0.4},
    degenerate=False,
    majority={"accuracy": 0.5, "f1": 0.0},
    num_examples={"train": 1000, "dev": 100},
    truncated=2,
    hardware="cpu",
    commit=None,
    seconds=90.5,
    data={"train": "ab", "dev": "cd"},
)


@pytest.mark.parametrize("start", [RESULT.pretrained, Start("hf", None), None])
def test_what_is_written_is_read_back(tmp_path, start):
    result = dataclasses.replace(RESULT, pretrained=start)
    result.write(tmp_path)
    assert Result.read(tmp_path / "result.json") == result
    assert result.main_metric == "accuracy"


def test_records_of_older_and_of_newer_versions_are_read(tmp_path):
    values = dataclasses.asdict(RESULT)
    del values["data"], values["pretrained"]["tokens"], values["pretrained"]["heldout_loss"]
    values["of_a_later_version"] = 1
    (tmp_path / "result.json").write_text(json.dumps(values))
    found = Result.read(tmp_path / "result.json")
    assert found == dataclasses.replace(RESULT, data={}, pretrained=Start("runs/tiny", 1000))


@pytest.mark.parametrize(
    ("group", "key", "value", "message"),
    [
        ("model", "parameters", "many", "model.parameters is 'many', expected int"),
        ("model", "size", 3, "model.size is 3, expected str or null"),
        ("pretrained", "step", 1.5, "pretrained.step is 1.5, expected int or null"),
        ("num_examples", "dev", True, "num_examples.dev is True, expected int"),
        ("data", "dev", 7, "data.dev is 7, expected str"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(tmp_path, group, key, value, message):
    values = dataclasses.asdict(RESULT)
    values[group][key] = value
    (tmp_path / "result.json").write_text(json.dumps(values))
    with pytest.raises(UserError) as error:
        Result.read(tmp_path / "result.json")
    assert str(error.value).startswith(f"{tmp_path / 'result.json'}: {message}.")
