"""Plan a small model for devices that are not here, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH, VOCABULARY = 128 * 8, 1024
"""A share of an eighth fills the 128 lanes of a TPU: only then does its compiler scatter what it reduces."""


def run_plan(topology: str, *flags: str) -> subprocess.CompletedProcess:
    """Return the finished process that plans a small model without dropout, which compiles fastest."""
    command = [sys.executable, "-m", "eelbert_jax", "plan", f"--topology={topology}", "--json"]
    command += ["--config=configs/pretrain.py:micro", "--noalternatives"]
    sizes = dict(
        hidden_size=WIDTH,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    command += [f"--config.model.{name}={value}" for name, value in sizes.items()]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def planned(topology: str, *flags: str) -> dict:
    """Return the plan of a batch of eight rows."""
    done = run_plan(topology, "--config.batch_size=8", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def payload(plan: dict, kind: str) -> int:
    """Return the bytes of arrays that all collectives of a kind move."""
    return sum(one["payload_bytes"] for one in plan["traffic"] if one["kind"] == kind)
