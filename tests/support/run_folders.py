"""Write what runs leave behind, by hand, for the tests of the report."""

import dataclasses
import json

from eelbert_jax.hashing.spec import HashSpec
from eelbert_jax.model.config import sized
from eelbert_jax.reporting import runs, scores
from eelbert_jax.vocabulary import SPECIAL_TOKENS, Vocabulary, save_vocabulary

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


def write_own(folder, name, train, dev, metrics=0.8, *, data=None, settings=None, **changes):
    """Write a run on a table of one's own: its config says which files, `data` what is in them."""
    own = {"train": train, "dev": dev, "dev_every": 0, "label_column": "label", **(settings or {})}
    config = {"task": "custom", "pretrained": None, "custom": own}
    values = result(task="custom", metrics={"accuracy": metrics}, majority={"accuracy": 0.5}, official=False)
    values |= changes | ({} if data is None else {"data": data})
    run = folder / name
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config))
    (run / "result.json").write_text(json.dumps(values))
    return run


def collect(folder, *results):
    """Return the scores of some results."""
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


def published_identity(size, embedding):
    """Return what a run of a published model records of it."""
    fields = dataclasses.asdict(sized(size, embedding=embedding))
    left_out = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dtype",
        "embedding_mode",
        "num_labels",
    )
    return {name: value for name, value in fields.items() if name not in left_out}


def write_pretraining(folder, rows, size="tiny", embedding="table", total_steps=20, **hash_changes):
    """Write the config and the metrics of a pre-training run that went to step 20."""
    folder.mkdir(parents=True)
    identity = published_identity(size, embedding)
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
    """Return the cells of one line of a table, of which there is one."""
    (found,) = [row for row in table.rows if row[0] == line]
    return list(found)
