"""A task of one's own of each kind: its scores as scikit-learn, scipy and seqeval compute them."""

import json
import random
import subprocess
import sys

import pytest

from eelbert_jax.config_files import load_config
from eelbert_jax.jobs.finetune import finetune
from eelbert_jax.vocabulary import SPECIAL_TOKENS

PEOPLE, CITIES, VERBS = ("ada", "alan", "kurt"), ("rome", "oslo", "new york"), ("left", "saw", "likes")
KINDS = ("classes", "pairs", "numbers", "lists", "tags")
COLUMNS = {"text_column": "a", "second_text_column": None, "label_column": "label"}


def example(kind, dice):
    """Return texts and a label that their words decide but for one in ten."""
    person, verb, city = (dice.choice(words) for words in (PEOPLE, VERBS, CITIES))
    text, other = f"{person} {verb} {city}", f"{dice.choice(PEOPLE)} {verb} {city}"
    odd = dice.random() < 0.1
    label = {
        "classes": "city" if odd else person,
        "pairs": "same" if (text == other) != odd else "other",
        "numbers": CITIES.index(city) + dice.random(),
        "lists": [name for name in (*PEOPLE, *CITIES) if name in text and not odd],
    }
    return {"a": text, "b": other, "label": label.get(kind)}


def write(folder, kind, dice):
    """Write train, dev and test, and return the files by split."""
    files = {}
    for split, number in (("train", 320), ("dev", 60), ("test", 60)):
        rows = [example(kind, dice) for _ in range(number)]
        path = folder / f"{kind}.{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if kind == "tags":
            tags = {"new": "B-LOC", "york": "I-LOC", "rome": "B-LOC", "oslo": "B-LOC"}
            tags |= dict.fromkeys(PEOPLE, "B-PER")
            lines = ["".join(f"{w} {tags.get(w, 'O')}\n" for w in row["a"].split()) for row in rows]
            path.write_text("\n".join(lines))
        files[split] = str(path)
    return files


def config_of(folder, kind, dice):
    config = load_config(f"configs/glue.py:micro,task={'tokens' if kind == 'tags' else 'custom'}")
    config.task_name, config.vocabulary = kind, str(folder / "vocab.txt")
    config.num_epochs, config.batch_size, config.max_length, config.opt.learning_rate = 3, 16, 16, 5e-3
    config[config.task].update(write(folder, kind, dice))
    if kind != "tags":
        config.custom.update({**COLUMNS, "second_text_column": "b" if kind == "pairs" else None})
        config.custom.regression = kind == "numbers"
    return config


def scored(runs):
    command = [sys.executable, "benchmarks/own_tasks.py", f"--score={runs}"]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_scores_are_those_of_other_libraries(tmp_path):
    pytest.importorskip("seqeval")
    words = sorted({word for group in (PEOPLE, VERBS, CITIES) for name in group for word in name.split()})
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words, ""]))
    dice = random.Random(0)
    results = {kind: finetune(config_of(tmp_path, kind, dice), tmp_path / "runs" / kind) for kind in KINDS}
    again = scored(tmp_path / "runs")
    assert again.returncode == 0, again.stderr
    found = {line["task"]: line for line in map(json.loads, again.stdout.splitlines())}
    for kind, result in results.items():
        assert found[kind]["dev"] == pytest.approx(result.metrics, abs=1e-6)
        assert found[kind]["test"] == pytest.approx(result.test_metrics, abs=1e-6)
    expected = {"accuracy", "f1", "pearson", "spearman", "micro_f1", "macro_f1", "exact_match", "entity_f1"}
    assert {name for result in results.values() for name in result.test_metrics} == expected
    wrong = {"lists": ["ada"], "numbers": 99.0, "pairs": "same", "tags": ["O"] * 4}
    for kind, prediction in wrong.items():
        path = tmp_path / "runs" / kind / "predictions" / "test.jsonl"
        answers = [json.loads(line) for line in path.read_text().splitlines()]
        for answer in answers[3:9]:
            is_tags = kind == "tags"
            answer["prediction"] = prediction[: len(answer["label"])] if is_tags else prediction
        path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
        again = scored(tmp_path / "runs" / kind)
        assert again.returncode == 1
        assert f"{kind}, test: " in again.stderr
