"""A few steps of every objective through its job: for what holds of all of them, here or on other devices.

python tests/support/small_runs.py ROWS FOLDER     # on this process's devices; a JSON object of figures
"""

import contextlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import ml_collections

from eelbert_jax.config_files import load_config
from eelbert_jax.jobs.finetune import finetune
from eelbert_jax.jobs.pretrain import pretrain
from eelbert_jax.vocabulary import SPECIAL_TOKENS

WORDS = ("ada", "rome", "saw", "left", "the", "train", ".")
BATCH = 16
DROPOUT = {"model.hidden_dropout_prob": 0.1}
SPLIT = {"mesh.fsdp": 2, "mesh.zero1": True}
"""Parameters split over pairs of devices, optimizer slots over all."""


def write_data(folder: Path) -> None:
    """Write a vocabulary, a table of labelled texts and a file of tagged words; all rows have one length."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in (*SPECIAL_TOKENS, *WORDS)))
    sentences = list(
        itertools.product(("ada", "rome"), ("saw", "left"), ("the train", "rome", "ada"), (".", ""))
    )
    lines = [f"{' '.join(words)}\t{words[0]}\n" for words in sentences] * 4
    (folder / "texts.tsv").write_text("sentence\tlabel\n" + "".join(lines))
    tags = {"ada": "B-PER", "rome": "B-LOC"}
    tagged = [
        "".join(f"{word} {tags.get(word, 'O')}\n" for word in " ".join(words).split())
        for words in sentences * 4
    ]
    (folder / "tags.txt").write_text("\n".join(tagged))


def masked_lm(rows_dir: Path, folder: Path, **changes) -> dict[str, float]:
    """Pre-train for four steps, evaluated thrice."""
    config = load_config("configs/pretrain.py:micro,setting=small")
    config.data.rows, config.data.eval_batch_size = str(rows_dir), BATCH
    config.update(total_steps=4, batch_size=BATCH, log_every_steps=1, eval_every_steps=2, tensorboard=False)
    config.checkpoint_every_steps, config.opt.warmup_steps, config.opt.learning_rate = 4, 2, 5e-3
    return pretrain(changed(config, changes), folder / "run")


def classify(rows_dir: Path, folder: Path, **changes) -> dict[str, float]:
    """Fine-tune on texts for an epoch."""
    return tuned("custom", folder, {"custom.train": "texts.tsv", "custom.dev_every": 3}, changes)


def tag(rows_dir: Path, folder: Path, **changes) -> dict[str, float]:
    """Fine-tune on tagged words for an epoch."""
    return tuned("tokens", folder, {"tokens.train": "tags.txt", "tokens.dev": "tags.txt"}, changes)


def tuned(task: str, folder: Path, data: dict, changes: dict) -> dict[str, float]:
    write_data(folder)
    config = load_config(f"configs/glue.py:micro,task={task}")
    config.vocabulary = str(folder / "vocab.txt")
    config.num_epochs, config.batch_size, config.max_length, config.log_every_steps = 1, BATCH, 16, 1
    paths = {name: str(folder / value) if isinstance(value, str) else value for name, value in data.items()}
    finetune(changed(config, {**paths, **changes}), folder / "run")
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return {"train_loss": [record["train_loss"] for record in records if "train_loss" in record][-1]}


def changed(config: ml_collections.ConfigDict, changes: dict) -> ml_collections.ConfigDict:
    config.update_from_flattened_dict(changes)
    return config


OBJECTIVES: dict[str, Callable[..., dict[str, float]]] = {
    "masked_lm": masked_lm,
    "classify": classify,
    "tag": tag,
}

if __name__ == "__main__":
    rows, out = Path(sys.argv[1]), Path(sys.argv[2])
    with contextlib.redirect_stdout(sys.stderr):
        found = {
            "masked_lm": masked_lm(rows, out / "masked_lm", **DROPOUT, **SPLIT),
            "classify": classify(rows, out / "classify", **DROPOUT, **SPLIT),
            "tag": tag(rows, out / "tag", **DROPOUT),
        }
    print(json.dumps({"devices": jax.device_count(), **found}))
