"""Joining the other processes of a job: who is taken for what, and real processes on loopback."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eelbert_jax.errors import NotMet, UserError
from eelbert_jax.training import distributed
from eelbert_jax.training.distributed import Membership, find_membership, joined
from support.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
TASK = {
    "SLURM_JOB_ID": "4098",
    "SLURM_STEP_NODELIST": "node[003-010,012],login1",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
JAX_VARIABLES = {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ({}, {}, None),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": 1}, {}, Membership("h:1", 2, 1)),
        ({}, JAX_VARIABLES, Membership("h:1", 4, 3)),
        ({"process_id": 0}, JAX_VARIABLES, Membership("h:1", 4, 0)),
        ({"coordinator": "[::1]:80", "num_processes": 2}, JAX_VARIABLES | {"JAX_PROCESS_ID": "1"},
         Membership("[::1]:80", 2, 1)),
        ({}, JAX_VARIABLES | TASK, Membership("h:1", 4, 3)),
        ({"num_processes": 1}, TASK, None),
        ({}, TASK, Membership("node003:61442", 8, 5, (1,))),
        ({}, TASK | {"SLURM_STEP_NODELIST": "a1,a7"}, Membership("a1:61442", 8, 5, (1,))),
        ({}, TASK | {"SLURM_STEP_NODELIST": "gpu-2-[4,9]"}, Membership("gpu-2-4:61442", 8, 5, (1,))),
        # A task alone on its host has all the host's GPUs; one to which Slurm shows a single GPU has that.
        ({}, TASK | {"SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, Membership("node003:61442", 2, 1)),
        ({}, TASK | {"CUDA_VISIBLE_DEVICES": "3"}, Membership("node003:61442", 8, 5)),
        ({}, TASK | {"CUDA_VISIBLE_DEVICES": "0,1"}, Membership("node003:61442", 8, 5, (1,))),
        # One task of an allocation of eight; a batch script, which is no step.
        ({}, TASK | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({}, {name: value for name, value in TASK.items() if name != "SLURM_STEP_NODELIST"}, None),
        ({}, {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({}, {"TPU_WORKER_HOSTNAMES": "t-0,t-1"}, Membership()),
        ({}, {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_NUM_SLICES": "2"}, Membership()),
        ({"distributed": True}, {}, Membership()),
        ({"distributed": True}, JAX_VARIABLES, Membership("h:1", 4, 3)),
    ],
)  # fmt: skip
def test_the_first_source_that_speaks_is_taken(arguments, environ, expected):
    assert find_membership(**arguments, environ=environ) == expected


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        ({"coordinator": "h:1"}, {}, r"needs --num_processes \(JAX_NUM_PROCESSES\) and --process_id \(JAX_"),
        ({}, {"JAX_PROCESS_ID": "1"}, r"--process_id \(JAX_PROCESS_ID\) = 1, but .* needs --coordinator"),
        ({"num_processes": 2, "process_id": 0}, {}, r"needs --coordinator \(JAX_COORDINATOR_ADDRESS\): HOST"),
        ({"coordinator": "h:1", "num_processes": 2, "process_id": 2}, {}, "= 2 does not fit .* = 2: proc"),
        ({"num_processes": 1, "process_id": 1, "coordinator": "h:1"}, {}, "= 1 does not fit .* = 1"),
        ({"coordinator": "host", "num_processes": 2, "process_id": 0}, {}, "HOST:PORT .* got 'host'"),
        ({}, JAX_VARIABLES | {"JAX_NUM_PROCESSES": "four"}, r"JAX_NUM_PROCESSES\) must be .* got 'four'"),
        ({"num_processes": -2}, {}, "must be a whole number from 0, got '-2'"),
        ({}, TASK | {"SLURM_STEP_NODELIST": "[]"}, r"No host in .*; give --coordinator=HOST:PORT"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_clear_error(arguments, environ, message):
    with pytest.raises(UserError, match=message):
        find_membership(**arguments, environ=environ)


@pytest.mark.parametrize("name", ["connect_seconds", "heartbeat_seconds"])
def test_durations_are_positive(name):
    with pytest.raises(UserError, match=f"--{name} must be at least 1, got 0"), joined(**{name: 0}):
        pass


class OwnUserError(UserError):
    """Stands for the subclasses of UserError."""


@pytest.mark.parametrize(
    ("error", "status"),
    [(UserError, 2), (OwnUserError, 2), (NotMet, 1), (ValueError, 1), (KeyboardInterrupt, 130)],
)
def test_one_of_several_processes_ends_with_the_status_of_a_process_alone(monkeypatch, error, status):
    left = []
    monkeypatch.setattr(distributed, "_connect", lambda *_: None)
    monkeypatch.setattr(distributed.atexit, "register", lambda *words: left.append(words))
    with pytest.raises(error), joined(coordinator="127.0.0.1:1", num_processes=2, process_id=1):
        raise error
    assert left == [(distributed._leave, status)]


def start(code: str, *, devices: int = 1, **variables: str) -> subprocess.Popen:
    """Start a process that runs `code` with this many CPU devices and these variables."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        **variables,
    }
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=pipe, stderr=pipe, text=True)


SUM = """
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec
from eelbert_jax.training import distributed, sharding
with distributed.joined({arguments}):
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    over = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
    values = sharding.global_array(lambda index: jnp.arange(8.0)[index], (8,), over)
    total = jax.jit(jnp.sum, out_shardings=jax.sharding.NamedSharding(mesh, PartitionSpec()))(values)
    print(jax.process_index(), jax.device_count(), jax.local_device_count(), float(total))
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", ["arguments", "variables", "slurm"])
def test_two_processes_see_all_devices_and_agree_on_a_sum(source):
    port = free_port()
    processes = []
    for index in range(2):
        arguments, variables = "", {}
        if source == "arguments":
            arguments = f"coordinator='127.0.0.1:{port}', num_processes=2, process_id={index}"
        elif source == "variables":
            variables = {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(index),
            }
        else:  # what srun sets; the port is 61440 + job modulo 4096
            variables = {
                "SLURM_JOB_ID": str(port),
                "SLURM_STEP_NODELIST": "localhost",
                "SLURM_STEP_NUM_NODES": "1",
                "SLURM_STEP_NUM_TASKS": "2",
                "SLURM_PROCID": str(index),
                "SLURM_LOCALID": str(index),
            }
        processes.append(start(SUM.format(arguments=arguments), devices=2, **variables))
    for index, process in enumerate(processes):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.splitlines()[-1] == f"{index} 4 2 28.0"


@pytest.mark.slow
def test_a_process_alone_joins_nothing():
    code = SUM.format(arguments="") + "assert jax._src.distributed.global_state.client is None"
    out, err = start(code, devices=2).communicate(timeout=120)
    assert out.splitlines()[-1] == "0 2 2 28.0", err


def pretrain(*words: str) -> str:
    """Return code that goes through the door, as `eelbert pretrain` does."""
    argv = ["pretrain", "--workdir=unused", *words]
    return f"import sys; from eelbert_jax.__main__ import main; sys.exit(main({argv!r}))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("index", "message"),
    [(0, "Not all of 2 processes came to the coordinator"), (1, "was not let in by the coordinator")],
)
def test_processes_that_do_not_meet_end_in_time_with_a_status_that_asks_to_try_again(index, message):
    """A coordinator where nobody listens; a coordinator to which nobody comes."""
    place = f"127.0.0.1:{free_port()}"
    words = (f"--coordinator={place}", "--num_processes=2", f"--process_id={index}", "--connect_seconds=3")
    begun = time.monotonic()
    process = start(pretrain(*words))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, (out, err)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert place in lines[0]
    assert "Traceback" not in err
    assert time.monotonic() - begun < 60


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=r"Cannot listen as the coordinator at port .* in use"):
            joined(coordinator=place, num_processes=2, process_id=0).__enter__()


@pytest.mark.slow
def test_asked_to_detect_what_is_not_there_it_says_what_to_give_instead():
    process = start(pretrain("--distributed"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "error: JAX detected no job of several processes" in err
    assert "give --coordinator=HOST:PORT" in err


@pytest.mark.slow
def test_a_process_that_fails_leaves_at_once_with_its_status():
    """One process of two finds no rows: it ends with status 2, and the other does not wait for ever."""
    place = f"127.0.0.1:{free_port()}"
    flags = (f"--coordinator={place}", "--num_processes=2", "--heartbeat_seconds=10")
    arguments = f"coordinator='{place}', num_processes=2, process_id=0, heartbeat_seconds=10"
    wait = (
        "from eelbert_jax.training import distributed\n"
        f"with distributed.joined({arguments}):\n"
        "    from jax.experimental.multihost_utils import sync_global_devices\n"
        "    sync_global_devices('meet')"
    )
    begun = time.monotonic()
    waiting = start(wait)
    failing = start(pretrain(*flags, "--process_id=1"))
    _, err = failing.communicate(timeout=120)
    assert failing.returncode == 2, err
    assert "error: No rows to train on" in err
    waiting.communicate(timeout=120)
    assert waiting.returncode != 0
    assert time.monotonic() - begun < 90
