"""The whole job on small rows: learning, resuming, refusing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eelbert_jax import cli
from eelbert_jax.corpus.rows import Rows
from eelbert_jax.errors import UserError
from eelbert_jax.inference.load import load
from eelbert_jax.jobs.pretrain import pretrain
from eelbert_jax.objectives.masked_lm import default_rows_a_pass
from eelbert_jax.training import fit, step
from eelbert_jax.training.loop import NonFiniteLoss
from eelbert_jax.training.writer import read_metrics
from eelbert_jax.vocabulary import load_vocabulary
from eelbert_jax.workdir import locked
from support import processes
from support.workdirs import cut_at


def small(rows_dir: Path, recipe: str = "micro", **changes):
    config = cli.load_config(f"configs/pretrain.py:{recipe},setting=small")
    config.update(
        dict(
            total_steps=20,
            batch_size=8,
            log_every_steps=1,
            eval_every_steps=10,
            checkpoint_every_steps=4,
            tensorboard=False,
        )
    )
    config.data.rows = str(rows_dir)
    config.data.eval_batch_size = 16
    config.opt.warmup_steps = 2
    config.update_from_flattened_dict(changes)
    return config


def losses(workdir: Path) -> list[tuple[int, float]]:
    return [
        (r["step"], r["train_loss"]) for r in read_metrics(workdir / "metrics.jsonl") if "train_loss" in r
    ]


def assert_same_params(one: Path, other: Path) -> None:
    for left, right in zip(*(jax.tree.leaves(load(d).params) for d in (one, other)), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "embedding", ["ngram_hash", "table", pytest.param("hash_initialized", marks=pytest.mark.slow)]
)
def test_it_learns_beyond_word_frequencies(rows_dir, tmp_path, embedding):
    durations = dict.fromkeys(("total_steps", "eval_every_steps", "checkpoint_every_steps"), 1200)
    config = small(rows_dir, f"micro,embedding={embedding}", batch_size=32, log_every_steps=400, **durations)
    config.opt.learning_rate = 5e-3
    figures = pretrain(config, tmp_path)
    heldout = Rows.open(rows_dir, "heldout")
    counts = np.bincount(heldout[np.arange(len(heldout))].ravel(), minlength=heldout.vocabulary.size)
    counts[list(heldout.vocabulary.special_ids)] = 0
    shares = counts[counts > 0] / counts.sum()
    unigram_entropy = -np.sum(shares * np.log(shares))
    assert figures["heldout_loss"] < 0.8 * unigram_entropy
    assert np.isclose(figures["heldout_perplexity"], np.exp(figures["heldout_loss"]))


@pytest.mark.parametrize("recipe", ["micro", pytest.param("micro,hash_width=64", marks=pytest.mark.slow)])
def test_resume_is_bitwise_and_a_finished_job_is_a_no_op(rows_dir, tmp_path, recipe):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = small(rows_dir, recipe, **{"model.hidden_dropout_prob": 0.1})
    figures = pretrain(config, whole)
    config.data.calls_ahead = 2  # whoever reads the rows, and when
    with cut_at(14):
        pretrain(config, parts)
    assert pretrain(config, parts) == figures
    assert losses(parts) == losses(whole)
    assert len(losses(whole)) == 20
    assert_same_params(whole, parts)
    record = (whole / "metrics.jsonl").read_text()
    assert pretrain(config, whole) == figures
    assert (whole / "metrics.jsonl").read_text() == record


def test_other_settings_are_said_while_a_run_goes_on_and_refused_once_it_is_finished(
    rows_dir, tmp_path, capsys
):
    pretrain(small(rows_dir, total_steps=4), tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"is finished, and was trained otherwise: seed: 0, now 5\."):
        pretrain(small(rows_dir, total_steps=4, seed=5), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before
    pretrain(small(rows_dir, total_steps=4, log_every_steps=2), tmp_path)
    capsys.readouterr()
    pretrain(small(rows_dir, total_steps=8, **{"opt.learning_rate": 1e-4}), tmp_path)
    said = capsys.readouterr().out
    assert "other settings than before" in said
    assert "opt.learning_rate: 0.001, now 0.0001" in said
    assert "total_steps: 4, now 8" in said


def test_another_seed_is_another_run(rows_dir, tmp_path):
    one, other = (small(rows_dir, total_steps=4, eval_every_steps=4, seed=seed) for seed in (0, 1))
    pretrain(one, tmp_path / "one")
    pretrain(other, tmp_path / "other")
    assert losses(tmp_path / "one") != losses(tmp_path / "other")


def test_accumulated_passes_are_the_whole_batch(rows_dir, tmp_path):
    changes = dict(total_steps=4, eval_every_steps=4)
    pretrain(small(rows_dir, **changes), tmp_path / "whole")
    pretrain(small(rows_dir, **changes, rows_per_device=2), tmp_path / "passes")
    # Without dropout the mean over four passes is that of one, up to the order of float32 sums.
    whole, passes = ([loss for _, loss in losses(tmp_path / name)] for name in ("whole", "passes"))
    np.testing.assert_allclose(whole, passes, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "row_length", "passes"), [(16, 128, 1), (64, 128, 4), (12, 1024, 6), (7, 512, 7), (3, 4096, 3)]
)
def test_a_cpu_takes_a_batch_in_passes_that_fit_its_caches(rows, row_length, passes):
    assert rows // default_rows_a_pass(rows, row_length, "cpu") == passes
    assert default_rows_a_pass(rows, row_length, "tpu") == rows


def test_several_steps_a_call_are_the_same_steps(rows_dir, tmp_path):
    changes = dict(total_steps=8, eval_every_steps=4, log_every_steps=4)
    one = pretrain(small(rows_dir, **changes), tmp_path / "one")
    four = pretrain(small(rows_dir, **changes, steps_per_call=4), tmp_path / "four")
    # The same arithmetic, compiled inside a loop: other fusions, other last bits.
    np.testing.assert_allclose(one["heldout_loss"], four["heldout_loss"], rtol=1e-5)


def test_evaluation_counts_every_row_whatever_the_batch(rows_dir, tmp_path):
    figures = [
        pretrain(
            small(rows_dir, total_steps=4, eval_every_steps=4, **{"data.eval_batch_size": size}),
            tmp_path / str(size),
        )
        for size in (7, 64)
    ]
    np.testing.assert_allclose(figures[0]["heldout_loss"], figures[1]["heldout_loss"], rtol=1e-6)
    assert figures[0]["heldout_accuracy"] == figures[1]["heldout_accuracy"]


def test_starts_from_the_parameters_of_another_run(rows_dir, tmp_path, capsys):
    config = small(rows_dir, total_steps=4, eval_every_steps=4)
    before = pretrain(config, tmp_path / "first")
    config.init_params_from = str(tmp_path / "first")
    pretrain(config, tmp_path / "second")
    assert "Starting from the parameters of" in capsys.readouterr().out
    records = read_metrics(tmp_path / "second" / "metrics.jsonl")
    assert {"step": 0, **before} in records


def test_a_non_finite_loss_stops_the_run_and_nothing_of_it_is_saved(rows_dir, tmp_path):
    # A rate at which the parameters overflow within a few steps.
    config = small(rows_dir, **{"opt.learning_rate": 1e38, "opt.max_grad_norm": 0.0})
    with pytest.raises(NonFiniteLoss, match=r"lower --config\.opt\.learning_rate"):
        pretrain(config, tmp_path)
    steps = [int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()]
    if steps:
        loaded = load(tmp_path)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loaded.params))


def poison_losses(monkeypatch, first: int, last: int) -> None:
    """Make the loss of the updates `first` to `last` NaN inside the compiled step."""
    original = step.apply_gradients

    def poisoned(state, loss, *rest):
        bad = (state.step + 1 >= first) & (state.step + 1 <= last)
        return original(state, jnp.where(bad, jnp.nan, loss), *rest)

    monkeypatch.setattr(step, "apply_gradients", poisoned)


def test_steps_that_are_not_finite_are_skipped_and_counted(rows_dir, tmp_path, monkeypatch, capsys):
    poison_losses(monkeypatch, 6, 8)
    pretrain(small(rows_dir, max_skipped_steps=4, log_every_steps=5, eval_every_steps=20), tmp_path)
    records = read_metrics(tmp_path / "metrics.jsonl")
    skipped = {record["step"]: record["skipped_steps"] for record in records if "skipped_steps" in record}
    assert sum(skipped.values()) == 3
    assert "3 steps skipped: not finite" in capsys.readouterr().out
    assert all(np.isfinite(record["train_loss"]) for record in records if "train_loss" in record)


def test_too_many_skipped_steps_in_a_row_end_the_run_before_it_is_poisoned(rows_dir, tmp_path, monkeypatch):
    poison_losses(monkeypatch, 6, 20)
    with pytest.raises(NonFiniteLoss, match=r"Step 8 has the loss nan .* as the 2 before it"):
        pretrain(small(rows_dir, max_skipped_steps=3), tmp_path)
    kept = load(tmp_path)
    assert kept.step == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept.params))


def test_an_update_that_overflows_after_a_finite_loss_is_not_saved(rows_dir, tmp_path, monkeypatch):
    original = fit.make_train_step

    def poisoned(*args, **options):
        compiled = original(*args, **options)

        def train_step(state, constants, batches):
            state, metrics = compiled(state, constants, batches)
            poison = jnp.where(state.step == 8, jnp.nan, 1.0)
            return state.replace(params=jax.tree.map(lambda leaf: leaf * poison, state.params)), metrics

        return train_step

    monkeypatch.setattr(fit, "make_train_step", poisoned)
    with pytest.raises(NonFiniteLoss, match="not finite after step 8"):
        pretrain(small(rows_dir), tmp_path)
    assert load(tmp_path).step == 4


def test_a_start_from_which_the_end_cannot_be_reached_is_refused(rows_dir, tmp_path):
    pretrain(small(rows_dir, total_steps=4, eval_every_steps=4), tmp_path)
    with pytest.raises(UserError, match="beyond total_steps=2"):
        pretrain(small(rows_dir, total_steps=2), tmp_path)
    steps = dict(total_steps=24, log_every_steps=8, eval_every_steps=8, checkpoint_every_steps=8)
    with pytest.raises(UserError, match="no multiple of steps_per_call=8"):
        pretrain(small(rows_dir, **steps, steps_per_call=8), tmp_path)


def test_a_start_cut_before_the_first_checkpoint_leaves_one_record_of_step_0(rows_dir, tmp_path):
    config = small(rows_dir, total_steps=4, eval_every_steps=4)
    with cut_at(1):
        pretrain(config, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        shutil.rmtree(path)
    pretrain(config, tmp_path)
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert sum(record["step"] == 0 and "heldout_loss" in record for record in records) == 1


def test_a_second_run_in_a_workdir_is_refused(rows_dir, tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="Another process works in"):
        pretrain(small(rows_dir), tmp_path)


def test_a_flipped_bit_in_a_shard_is_found_at_the_start(rows_dir, tmp_path):
    copy = tmp_path / "rows"
    shutil.copytree(rows_dir, copy)
    shard = next(path for path in (copy / "train").iterdir())
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match=shard.name):
        pretrain(small(copy), tmp_path / "run")


def test_a_checkpoint_of_another_vocabulary_is_refused_and_stays_usable(rows_dir, tmp_path):
    pretrain(small(rows_dir, total_steps=4, eval_every_steps=4), tmp_path / "run")
    other = tmp_path / "rows"
    shutil.copytree(rows_dir, other)
    words = (other / "vocab.txt").read_text().split("\n")
    words[-2] = "another"
    (other / "vocab.txt").write_text("\n".join(words))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["vocabulary"]["fingerprint"] = load_vocabulary(other / "vocab.txt").fingerprint
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"vocabulary: saved '\w+', wanted '\w+'"):
        pretrain(small(other), tmp_path / "run")
    assert load(tmp_path / "run").step == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.hidden_size": 64}, "model.hidden_size: saved 32, wanted 64"),
        ({"model.hash.seed": 1}, r"hash: saved '\w+', wanted '\w+'"),
        ({"model.embedding": "table"}, "model.embedding: saved 'ngram_hash', wanted 'table'"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_difference(rows_dir, tmp_path, changes, said):
    pretrain(small(rows_dir, total_steps=4, eval_every_steps=4), tmp_path)
    with pytest.raises(UserError, match=said):
        pretrain(small(rows_dir, **changes), tmp_path)
    assert load(tmp_path).step == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.rows": None}, "set --config.data.rows=DIR"),
        ({"data.rows": "/nowhere"}, "/nowhere"),
        ({"model.vocab_size": 999}, "999, but the vocabulary has"),
        ({"opt.warmup_steps": 21}, "lower the warm-up"),
        ({"steps_per_call": 3}, "no multiple of steps_per_call=3"),
        ({"rows_per_device": 3}, "no multiple of rows_per_device=3"),
        ({"model.max_position_embeddings": 16}, "do not fit max_position_embeddings=16"),
        ({"mlm_probability": 0.0}, "config.mlm_probability"),
        ({"data.eval_batch_size": 0}, "config.data.eval_batch_size"),
        ({"data.calls_ahead": -1}, "config.data.calls_ahead"),
        ({"keep_checkpoints": 0}, "config.keep_checkpoints"),
        ({"opt.beta2": 1.0}, "opt.beta2"),
        ({"seed": -1}, r"seed must lie in \[0, 2\*\*32\), got -1"),
        ({"init_params_from": "/nowhere"}, "No checkpoints at /nowhere"),
    ],
)
def test_bad_input_is_one_clear_error(rows_dir, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        pretrain(small(rows_dir, **changes), tmp_path)


def test_an_unwritable_workdir_is_said(rows_dir, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--workdir"):
        pretrain(small(rows_dir), tmp_path / "file" / "run")


@pytest.mark.slow
def test_killed_by_signal_9_and_resumed_bitwise(rows_dir, tmp_path):
    """20 steps == 12 + kill -9 + resume, through the command line."""
    words = [
        sys.executable, "-m", "eelbert_jax", "pretrain", "--config=configs/pretrain.py:micro,setting=small",
        f"--config.data.rows={rows_dir}", "--config.total_steps=20", "--config.opt.warmup_steps=2",
        "--config.log_every_steps=1", "--config.eval_every_steps=10", "--config.checkpoint_every_steps=4",
        "--config.batch_size=8", "--config.tensorboard=false",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([*words, f"--workdir={whole}"], env=env, check=True, capture_output=True)
    killed = processes.held_at(14, [*words, f"--workdir={parts}"], tmp_path / "never")
    process = subprocess.Popen(killed, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    processes.wait_until(lambda: (parts / "checkpoints" / "12").is_dir(), [process])
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = subprocess.run(
        [*words, f"--workdir={parts}"], env=env, check=True, capture_output=True, text=True
    )
    assert "Resuming from step 12" in resumed.stdout
    assert losses(parts) == losses(whole)
    assert_same_params(whole, parts)
