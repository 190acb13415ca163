"""The launchers: what they do however processes and machines end."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from eelbert_jax.training.writer import read_metrics
from support import processes
from support.launchers import ROOT, TPU, TRAIN, launch, options, programs

GCLOUD = """
log={log}
echo "$3 $4 $(grep -o 'systemctl show\\|systemd-run\\|journalctl' <<< "$*" | head -1)" >> $log
case "$*" in
  *" describe "*) next=states ;;
  *"systemctl show"*) next=trainers ;;
  *) exit 0 ;;
esac
file=$(dirname $log)/$next
answer=$(head -1 $file)
sed -i 1d $file
[[ "$answer" != none ]] || {{ echo "ERROR: (gcloud) NOT_FOUND: Resource was not found." >&2; exit 1; }}
[[ "$answer" != broken ]] || {{ echo "ERROR: (gcloud) UNAVAILABLE: try later." >&2; exit 1; }}
tr ' ' '\\n' <<< "$answer"
"""


def tpu_run(folder: Path, states: list[str], trainers: list[str], *words: str) -> tuple[int, list[str]]:
    """Run the TPU launcher against a `gcloud` that answers from lists; return its status and its actions."""
    (folder / "states").write_text("".join(f"{state}\n" for state in states))
    (folder / "trainers").write_text("".join(f"{trainer}\n" for trainer in trainers))
    fake = programs(folder, gcloud=GCLOUD.format(log=folder / "log"))
    done = launch("tpu_queued_resource.sh", *options(TPU), *words, "--", *TRAIN, path=fake)
    names = {
        "queued-resources create": "create", "queued-resources delete": "delete", "tpu-vm ssh": "setup",
        "tpu-vm ssh systemd-run": "start", "tpu-vm ssh journalctl": "logs",
    }  # fmt: skip
    actions = [line.strip() for line in (folder / "log").read_text().splitlines()]
    return done.returncode, [names[action] for action in actions if action in names]


def test_a_preempted_tpu_is_taken_anew_and_the_same_command_started_again(tmp_path):
    status, actions = tpu_run(
        tmp_path,
        ["none", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED",
         "none", "ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE"],
        ["dead", "running", "dead dead", "running", "exited running", "exited exited"],
    )  # fmt: skip
    assert status == 0
    assert actions == ["create", "setup", "start", "delete", "create", "setup", "start", "logs", "delete"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_trainer_that_systemd_gave_up_ends_the_launcher(tmp_path, keep):
    words = ["--keep"] if keep else []
    status, actions = tpu_run(tmp_path, ["ACTIVE", "ACTIVE"], ["running failed"], *words)
    assert status == 1
    assert actions == (["logs"] if keep else ["logs", "delete"])


def test_a_host_that_lost_its_trainer_is_started_again(tmp_path):
    status, actions = tpu_run(
        tmp_path, ["ACTIVE"] * 4, ["running dead", "none", "running auto-restart", "exited"], "--keep"
    )
    assert status == 0
    assert actions == ["setup", "start", "logs"]


def test_a_look_that_fails_creates_and_deletes_nothing(tmp_path):
    status, actions = tpu_run(
        tmp_path, ["broken"] * 6 + ["ACTIVE", "broken", "ACTIVE"], ["running", "exited"], "--keep"
    )
    assert status == 0
    assert actions == ["logs"]


def test_what_cannot_be_created_is_given_up_and_nothing_deleted(tmp_path):
    code = f'echo "$4" >> {tmp_path}/log; echo "ERROR: NOT_FOUND: no such zone." >&2; exit 1'
    fake = programs(tmp_path, gcloud=code)
    done = launch("tpu_queued_resource.sh", *options(TPU), "--", *TRAIN, path=fake)
    assert done.returncode == 1
    assert (tmp_path / "log").read_text().split() == ["describe", "create"] * 5


SRUN = "echo run >> {0}/log; status=$(head -1 {0}/statuses); sed -i 1d {0}/statuses; exit $status"


@pytest.mark.parametrize(
    ("statuses", "expected", "log"),
    [
        ([0], 0, ["run"]),
        ([2], 2, ["run"]),
        ([75], 75, ["run", "requeue 7"]),
        ([1, 137, 0], 0, ["run"] * 3),
        ([1, 75], 75, ["run", "run", "requeue 7"]),
        ([1, 1, 1, 134], 134, ["run"] * 4),
    ],
)
def test_slurm_requeues_what_was_preempted_and_tries_a_crash_again(tmp_path, statuses, expected, log):
    (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    fake = programs(tmp_path, srun=SRUN.format(tmp_path), scontrol=f'echo "$@" >> {tmp_path}/log')
    done = launch("slurm.sbatch", *TRAIN, path=fake, SLURM_JOB_ID="7")
    assert done.returncode == expected
    assert (tmp_path / "log").read_text().splitlines() == log


def test_slurm_does_not_repeat_what_one_task_found_to_be_bad_input(tmp_path):
    """The others, who wait for it in vain, are killed, and srun ends with the highest status."""
    log = tmp_path / "log"
    code = f'echo run >> {log}; echo "srun: error: host1: task 0: Exited with exit code 2" >&2; exit 137'
    done = launch("slurm.sbatch", *TRAIN, path=programs(tmp_path, srun=code), SLURM_JOB_ID="7")
    assert done.returncode == 2
    assert log.read_text() == "run\n"
    assert "task 0: Exited with exit code 2" in done.stderr


def test_slurm_waits_for_the_tasks_when_it_is_told_to_end(tmp_path):
    """Slurm may send SIGTERM to the batch script too, while the tasks still save."""
    log = tmp_path / "log"
    fake = programs(tmp_path, srun="kill -TERM $PPID; exit 75", scontrol=f'echo "$@" >> {log}')
    assert launch("slurm.sbatch", *TRAIN, path=fake, SLURM_JOB_ID="7").returncode == 75
    assert log.read_text() == "requeue 7\n"


@pytest.mark.parametrize(
    ("number", "code", "words", "expected", "starts"),
    [
        (2, "exit 0", (), 0, 1),
        (2, "exit 2", (), 2, 1),
        (2, "exit $((JAX_PROCESS_ID * 2))", (), 2, 1),
        (1, "exit 9", ("--max_restarts=1",), 9, 2),
        (1, "exit 9", ("--max_restarts=0",), 9, 1),
        (1, "((n > 2)) && exit 0; exit 1", (), 0, 3),
        (2, "((n > 6)) && exit 0; exit 75", ("--max_restarts=0",), 0, 7),
        # The last process is lost, and the other would wait for it for ever.
        (2, "((JAX_PROCESS_ID)) && exit 1; exec tail -f /dev/null", ("--max_restarts=1",), 1, 2),
    ],
)
def test_local_processes_are_started_again_as_their_status_asks(
    tmp_path, number, code, words, expected, starts
):
    count = f"cd {tmp_path}; echo >> $JAX_PROCESS_ID; n=$(wc -l < $JAX_PROCESS_ID)"
    # A process that ends badly has the others killed: not before they have counted.
    together = (
        "for i in $(seq 0 $((JAX_NUM_PROCESSES - 1))); do until (($(wc -l < $i) >= n)); do :; done; done"
    )
    code = f"{count}; {together} 2>/dev/null; {code}"
    command = ("--", "bash", "-c", code)
    done = launch("local.sh", f"--processes={number}", *words, *command, path=programs(tmp_path))
    assert done.returncode == expected, done.stderr
    assert (tmp_path / str(number - 1)).read_text().count("\n") == starts


def test_sigterm_to_the_local_launcher_reaches_all_processes_and_ends_it(tmp_path):
    """The processes end with 75, as after a save, and are not started again."""
    code = (
        f"trap 'kill $!; echo $JAX_PROCESS_ID >> {tmp_path}/told; exit 75' TERM; tail -f /dev/null & "
        f"echo >> {tmp_path}/ready; wait"
    )
    words = ["launch/local.sh", "--processes=3", "--", "bash", "-c", code]
    launcher = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    ready = tmp_path / "ready"
    processes.wait_until(lambda: ready.is_file() and len(ready.read_text()) == 3, [launcher])
    launcher.send_signal(signal.SIGTERM)
    _, err = launcher.communicate(timeout=60)
    assert launcher.returncode == 75, err
    assert sorted((tmp_path / "told").read_text().split()) == ["0", "1", "2"]


def losses(workdir: Path) -> list[tuple[int, float]]:
    records = read_metrics(workdir / "metrics.jsonl")
    return [(r["step"], r["train_loss"]) for r in records if "train_loss" in r]


def last_step(workdir: Path) -> int:
    return max((step for step, _ in losses(workdir)), default=0)


@pytest.mark.slow
def test_two_real_processes_told_to_stop_and_started_again_reach_the_losses_of_two_never_stopped(
    rows_dir, tmp_path
):
    """Bitwise. The run would not end by itself, so that the signal always comes before its end."""
    endless = [f"--config.{name}=100000" for name in ("total_steps", "eval_every_steps")]
    changes = (*endless, "--config.checkpoint_every_steps=100000", "--config.data.eval_rows=16")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

    def run_until(step: int, workdir: Path) -> str:
        """Run until `step` is in the record, tell the launcher to stop and return what was printed."""
        launcher = ["launch/local.sh", "--processes=2", f"--port={processes.free_port()}", "--"]
        words = [*launcher, *processes.pretrain_words(rows_dir, workdir, *changes)]
        pipe = subprocess.PIPE
        started = subprocess.Popen(words, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
        processes.wait_until(lambda: last_step(workdir) >= step, [started])
        started.send_signal(signal.SIGTERM)
        out, err = started.communicate(timeout=processes.PATIENCE_SECONDS)
        assert started.returncode == 75, err
        return out

    assert "Resuming" not in run_until(3, tmp_path / "stopped")
    stopped_at = last_step(tmp_path / "stopped")
    out = run_until(stopped_at + 5, tmp_path / "stopped")
    assert out.count(f"Resuming from step {stopped_at}") == 1
    run_until(stopped_at + 5, tmp_path / "whole")
    stopped, whole = (losses(tmp_path / name)[: stopped_at + 5] for name in ("stopped", "whole"))
    assert [step for step, _ in whole] == list(range(1, stopped_at + 6))
    assert stopped == whole
