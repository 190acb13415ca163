"""Break a run in every way that a cluster breaks one, and see what is left. Numbers: docs/reliability.md."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eelbert_jax.corpus.rows import Rows, row_indices
from eelbert_jax.training.writer import read_metrics
from eelbert_jax.workdir import METRICS_NAME
from support.processes import (
    ROOT,
    finish,
    free_port,
    held_at,
    pretrain_words,
    run,
    start,
    wait_for_line,
    wait_until,
    wait_until_held,
)
from support.workdirs import assert_same_run, figures, saved_steps

pytestmark = pytest.mark.slow

SLOWLY = (
    "--config.total_steps=100000",
    "--config.checkpoint_every_steps=100000",
    "--config.eval_every_steps=100000",
)
"""A run that will not end by itself, so that a signal always comes before its end."""


def losses(workdir: Path) -> dict[int, float]:
    return figures(workdir, "train_loss")


def heldout(workdir: Path) -> dict[int, float]:
    return figures(workdir, "heldout_loss")


def steps_done(workdir: Path) -> int:
    return max(losses(workdir), default=0)


def test_sigterm_saves_the_step_reached_and_the_same_command_continues_bitwise(rows_dir, tmp_path):
    """Fault 3. Nothing is due to be saved when the signal comes."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    seldom = ("--config.checkpoint_every_steps=20", "--config.eval_every_steps=20")
    words = pretrain_words(rows_dir, parts, *seldom)
    process = start(held_at(7, words, tmp_path / "told"))
    wait_until_held(tmp_path / "told", process)
    process[0].send_signal(signal.SIGTERM)
    (tmp_path / "told").touch()
    [(status, _, error)] = finish(process)
    assert status == 75, error
    assert "saved step 8; the same command continues" in error
    assert saved_steps(parts) == [0, 8]
    [out] = run(words)
    assert "Resuming from step 8" in out
    run(pretrain_words(rows_dir, whole, *seldom))
    assert_same_run(rows_dir, whole, parts)


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_sigterm_to_one_of_two_processes_saves_one_step_on_both(rows_dir, tmp_path, steps_per_call):
    """Fault 4, in a fresh run and in a resumed one before its first step."""
    calls = [f"--config.{name}={steps_per_call}" for name in ("steps_per_call", "log_every_steps")]
    both = start(pretrain_words(rows_dir, tmp_path, *SLOWLY, *calls), processes=2)
    wait_until(lambda: steps_done(tmp_path) >= 5, both)
    both[1].send_signal(signal.SIGTERM)
    ended = finish(both)
    assert [status for status, _, _ in ended] == [75, 75], ended
    announced = {re.search(r"saved step (\d+)", error).group(1) for _, _, error in ended}
    assert len(announced) == 1
    assert announced == {str(max(saved_steps(tmp_path)))}
    words = held_at("start", pretrain_words(rows_dir, tmp_path, *SLOWLY, *calls), tmp_path / "told")
    again = start(words, processes=2)
    wait_until_held(tmp_path / "told", again)
    again[1].send_signal(signal.SIGTERM)
    wait_for_line("SIGTERM caught", again[1], again[1].stderr)
    (tmp_path / "told").touch()
    assert [status for status, _, _ in finish(again)] == [75, 75]
    more = max(saved_steps(tmp_path)) + 4
    durations = ("eval_every_steps", "checkpoint_every_steps")
    every = [f"--config.{name}={steps_per_call}" for name in durations]
    words = pretrain_words(rows_dir, tmp_path, f"--config.total_steps={more}", *calls, *every)
    outs = run(words, processes=2)
    assert "Resuming from step" in outs[0]
    assert "Resuming" not in outs[1], "only the first process speaks"


def test_a_killed_peer_ends_the_survivor_and_a_restart_resumes(rows_dir, tmp_path):
    """Fault 5. The bound is the heartbeat's: too long to wait out."""
    words = pretrain_words(rows_dir, tmp_path, *SLOWLY, "--config.checkpoint_every_steps=4")
    both = start([*words, "--heartbeat_seconds=10"], processes=2)
    wait_until(lambda: max(saved_steps(tmp_path), default=0) >= 4, both)
    both[1].kill()
    ended = finish(both)
    assert ended[0][0] not in (0, None), ended
    assert ended[1][0] == -signal.SIGKILL
    good = max(saved_steps(tmp_path))
    outs = run(pretrain_words(rows_dir, tmp_path, f"--config.total_steps={good + 40}"), processes=2)
    resumed = int(re.search(r"Resuming from step (\d+)", outs[0]).group(1))
    assert 0 < resumed <= good
    assert steps_done(tmp_path) == good + 40


def test_a_stuck_peer_ends_the_run_with_stacks(rows_dir, tmp_path):
    """Fault 6. The peer is stopped, not dead: its connections stand."""
    words = pretrain_words(rows_dir, tmp_path, *SLOWLY, "--config.watchdog_seconds=40")
    both = start([*words, "--heartbeat_seconds=1000"], processes=2)
    wait_until(lambda: steps_done(tmp_path) >= 5, both)
    both[1].send_signal(signal.SIGSTOP)
    [(status, _, error)] = finish(both[:1])
    both[1].kill()
    both[1].communicate()
    assert status == 1
    assert "Timeout (0:00:40)!" in error
    assert "most recent call first" in error
    assert "loop.py" in error


def test_a_flipped_bit_in_the_newest_checkpoint_costs_the_steps_since_the_one_before(rows_dir, tmp_path):
    """Fault 7, through the command line."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(pretrain_words(rows_dir, whole))
    run(pretrain_words(rows_dir, parts, "--config.total_steps=8", "--config.eval_every_steps=4"))
    newest = [path for path in (parts / "checkpoints" / "8" / "state").rglob("*") if path.is_file()]
    victim = max(newest, key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 4
    victim.write_bytes(data)
    [(status, out, error)] = finish(start(pretrain_words(rows_dir, parts, "--config.opt.warmup_steps=2")))
    assert status == 0, error
    assert "Resuming from step 4" in out
    assert victim.name in error
    assert "sha256" in error.lower()


@pytest.mark.parametrize("flags", [(), ("--config.mesh.zero1=true",), ("--config.mesh.fsdp=4",)])
def test_a_checkpoint_is_resumed_on_any_number_of_devices(rows_dir, tmp_path, flags):
    """Fault 10: 8 devices, then 4, then 1, against 1 from beginning to end."""
    wide = ("--config.model.hidden_size=64", "--config.model.intermediate_size=256")
    run(pretrain_words(rows_dir, tmp_path / "one", *wide))
    for devices, total in ((8, 8), (4, 16), (1, 20)):
        mesh = flags if devices > 1 else ()
        words = pretrain_words(rows_dir, tmp_path / "many", *wide, *mesh)
        if total < 20:
            process = start(held_at(total + 2, words, tmp_path / "never"), devices=devices)
            wait_until(lambda total=total: total in saved_steps(tmp_path / "many"), process)
            process[0].kill()
            finish(process)
        else:
            [out] = run(words, devices=devices)
            assert "Resuming from step 16" in out
    one, many = losses(tmp_path / "one"), losses(tmp_path / "many")
    assert one.keys() == many.keys()
    np.testing.assert_allclose(list(one.values()), list(many.values()), rtol=1e-6)
    np.testing.assert_allclose(
        list(heldout(tmp_path / "one").values()), list(heldout(tmp_path / "many").values()), rtol=1e-6
    )


def test_one_process_of_8_two_of_4_and_one_device_are_the_same_run(rows_dir, tmp_path):
    """Fault 10, and what a global batch means: the same rows, masks and losses on any machine."""
    run(pretrain_words(rows_dir, tmp_path / "1x8"), devices=8)
    run(pretrain_words(rows_dir, tmp_path / "2x4"), devices=4, processes=2)
    run(pretrain_words(rows_dir, tmp_path / "1x1"))
    found = {name: np.array(list(losses(tmp_path / name).values())) for name in ("1x8", "2x4", "1x1")}
    for name in ("1x8", "2x4"):
        np.testing.assert_allclose(found[name], found["1x1"], rtol=1e-6)


ROWS_OF_A_PROCESS = """
import sys, numpy as np, jax
from eelbert_jax.corpus.rows import Rows
from eelbert_jax import cli
from eelbert_jax.jobs import pretrain
from eelbert_jax.training import distributed, sharding
from eelbert_jax.workdir import METRICS_NAME
rows_dir, out, port, index = sys.argv[1:]
with distributed.joined(coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=int(index)):
    config = cli.load_config("configs/pretrain.py:micro,setting=small")
    config.batch_size, config.steps_per_call, config.data.eval_batch_size = 8, 2, 8
    layout, rows = sharding.Layout(sharding.make_mesh(2)), Rows.open(rows_dir, "train")
    objective = pretrain.make_objective(config, rows.vocabulary, rows.row_length, layout, rows)
    parts = {}
    for step in (0, 2, 4, 100):
        for shard in objective.next_batch(step).addressable_shards:
            parts[f"{step} {shard.index[1].start or 0}"] = np.asarray(shard.data)
    np.savez(out, **parts)
"""


def test_the_rows_of_all_hosts_together_are_the_global_batches_in_order(rows_dir, tmp_path):
    """Fault 14: nothing dropped, nothing repeated, whoever reads it; across an epoch's end too."""
    port = str(free_port())
    env = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", ROWS_OF_A_PROCESS, rows_dir, tmp_path / f"{index}.npz", port, str(index)],
            env={**env, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for index in range(2)
    ]
    for status, _, error in finish(both):
        assert status == 0, error
    parts = [np.load(tmp_path / f"{index}.npz") for index in range(2)]
    assert not set(parts[0]) & set(parts[1]), "hosts read disjoint rows"
    found = {**parts[0], **parts[1]}
    rows = Rows.open(rows_dir, "train")
    for step in (0, 2, 4, 100):
        starts = sorted(int(name.split()[1]) for name in found if name.split()[0] == str(step))
        batch = np.concatenate([found[f"{step} {start}"] for start in starts], axis=1)
        for k in range(2):
            np.testing.assert_array_equal(batch[k], rows[row_indices(0, step + k, 8, len(rows))])


def test_a_named_batch_can_be_shown_again(rows_dir, tmp_path):
    """Fault 12, through the command line."""
    words = pretrain_words(rows_dir, tmp_path, "--show_batch=3")
    first, second = run(words)[0], run(words)[0]
    assert first == second
    rows = Rows.open(rows_dir, "train")
    shown = [int(line.split("\t")[0]) for line in first.splitlines()]
    assert shown == row_indices(0, 2, 8, len(rows)).tolist()
    assert "[MASK]" in first
    assert not (tmp_path / METRICS_NAME).exists()


def test_where_the_time_went_survives_a_restart(rows_dir, tmp_path):
    """Goodput: the work of killed steps is counted as lost when it is done again."""
    changes = ("--config.total_steps=120", "--config.checkpoint_every_steps=50")
    words = pretrain_words(rows_dir, tmp_path, *changes)
    process = start(held_at(60, words, tmp_path / "never"))
    wait_until_held(tmp_path / "never", process)
    wait_until(lambda: 50 in saved_steps(tmp_path), process)
    process[0].kill()
    finish(process)
    [out] = run(words)
    last = read_metrics(tmp_path / METRICS_NAME)[-2]
    assert last["seconds_lost"] > 0
    assert re.search(r"goodput [\d.]+% of \d+ s \(init .*step .*lost ", out)
    assert json.loads((tmp_path / "config.json").read_text())["total_steps"] == 120
