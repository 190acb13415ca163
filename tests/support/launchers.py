"""Run the launchers, with small programs that stand for those of clusters and clouds."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in LAUNCH.iterdir())
TRAIN = ("eelbert", "pretrain", "--config.note=it's a b", "--workdir=gs://bucket/base")
TPU = {
    "name": "base",
    "zone": "us-west4-a",
    "accelerator_type": "v5litepod-256",
    "runtime_version": "v2-alpha-tpuv5-lite",
    "install": "eelbert_jax[tpu] @ git+URL",
}
JOBSET = {
    "name": "base",
    "image": "registry/eelbert:1",
    "accelerator": "tpu-v5-lite-podslice",
    "topology": "16x16",
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
