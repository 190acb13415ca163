"""How the processes of one job find each other: explicit flags, the environment, Slurm or a TPU pod."""

import atexit
import contextlib
import dataclasses
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator, Mapping

import jax

from eelbert_jax.errors import NotMet, Preempted, UserError, absent_platform

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
NUM_PROCESSES = "JAX_NUM_PROCESSES"
PROCESS_ID = "JAX_PROCESS_ID"
SLURM_STEP = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_STEP_NUM_NODES", "SLURM_PROCID", "SLURM_LOCALID")
"""What `srun` gives each task; a batch script, or a shell in an allocation, lacks the second."""

TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
"""Either lists the hosts of a slice on GKE, separated by commas. Source: JAX, `GkeTpuCluster`."""

EXIT_MARGIN_SECONDS = 60
"""JAX gives up joining so much later than `_connect`: it aborts the process without saying what to do."""


@dataclasses.dataclass(frozen=True)
class Membership:
    """Which process of which job this one is; JAX detects what is None."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None


def find_membership(
    *,
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    distributed: bool = False,
    environ: Mapping[str, str],
) -> Membership | None:
    """Return this process's place in its job, or None where it was started alone.

    The first source that speaks is taken: arguments and JAX_* variables (an argument wins over its variable),
    Slurm with more than one task, a TPU pod on GKE, and what JAX detects where `distributed` asks for it
    (several Cloud TPU VMs say what they are in their metadata alone). Contradicting settings are a
    `UserError`.
    """
    given = {
        COORDINATOR: coordinator or environ.get(COORDINATOR, ""),
        NUM_PROCESSES: str(num_processes) if num_processes else environ.get(NUM_PROCESSES, ""),
        PROCESS_ID: str(process_id) if process_id != -1 else environ.get(PROCESS_ID, ""),
    }
    if any(given.values()):
        return _explicit(given)
    if all(name in environ for name in SLURM_STEP) and _slurm_tasks(environ) > 1:
        return _slurm(environ)
    if distributed or _is_tpu_pod(environ):
        return Membership()
    return None


@contextlib.contextmanager
def joined(
    *,
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    distributed: bool = False,
    connect_seconds: int = 300,
    heartbeat_seconds: int = 100,
) -> Iterator[None]:
    """Join the other processes of the job, if there are any, before anything asks JAX for its devices.

    A process that fails leaves at once: JAX's farewell waits for the others, who wait in a collective for
    this one, and then aborts, which hides the exit status. A process not heard of for `heartbeat_seconds` is
    taken for dead and ends the job. Raises `NotMet` where they do not meet within `connect_seconds`.
    """
    for name, value in (("connect_seconds", connect_seconds), ("heartbeat_seconds", heartbeat_seconds)):
        if value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}.")
    membership = find_membership(
        coordinator=coordinator,
        num_processes=num_processes,
        process_id=process_id,
        distributed=distributed,
        environ=os.environ,
    )
    if membership is None:
        yield
        return
    if membership.process_id == 0:
        _check_port(os.environ.get("JAX_COORDINATOR_BIND_ADDRESS") or str(membership.coordinator))
    try:
        _connect(membership, connect_seconds, heartbeat_seconds)
        yield
    except Preempted:  # all processes end here, at one step
        raise
    except (Exception, KeyboardInterrupt) as error:
        atexit.register(_leave, _exit_status(error))
        raise


def _explicit(given: Mapping[str, str]) -> Membership | None:
    """Return what flags and JAX_* variables say; None for the only process of a job of one."""
    numbers = {}
    for name in (NUM_PROCESSES, PROCESS_ID):
        if given[name] and not re.fullmatch("[0-9]+", given[name]):
            raise UserError(f"{_named(name)} must be a whole number from 0, got {given[name]!r}.")
        numbers[name] = int(given[name]) if given[name] else None
    count, index = numbers[NUM_PROCESSES], numbers[PROCESS_ID]
    if count == 1 and index in (None, 0):
        return None
    missing = [_named(name) for name, value in given.items() if not value]
    if missing:
        present = ", ".join(f"{_named(name)} = {value}" for name, value in given.items() if value)
        raise UserError(
            f"Got {present}, but a job of several processes also needs {' and '.join(missing)}: HOST:PORT of "
            "process 0, how many processes there are, and which of them this is, from 0."
        )
    assert count is not None
    assert index is not None
    if index >= count:
        raise UserError(
            f"{_named(PROCESS_ID)} = {index} does not fit {_named(NUM_PROCESSES)} = {count}: processes are "
            "numbered from 0 to one less than there are."
        )
    if not re.fullmatch(r".+:[0-9]{1,5}", given[COORDINATOR]):
        raise UserError(
            f"{_named(COORDINATOR)} must be HOST:PORT of process 0, for example 10.0.0.2:8476, "
            f"got {given[COORDINATOR]!r}."
        )
    return Membership(given[COORDINATOR], count, index)


def _named(variable: str) -> str:
    flag = {COORDINATOR: "--coordinator", NUM_PROCESSES: "--num_processes", PROCESS_ID: "--process_id"}[
        variable
    ]
    return f"{flag} ({variable})"


def _slurm_tasks(environ: Mapping[str, str]) -> int:
    return int(environ.get("SLURM_STEP_NUM_TASKS", environ.get("SLURM_NTASKS", "1")))


def _slurm(environ: Mapping[str, str]) -> Membership:
    """Return the membership of a task that `srun` started, the coordinator on the step's first host.

    The port follows the job, so that jobs on one host keep apart. Of several tasks on a host, each takes the
    GPU of its number, unless Slurm shows it one GPU alone (JAX's `SlurmCluster` gives a lone task one too).
    """
    nodes = environ["SLURM_STEP_NODELIST"]
    first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)  # host3,host7 or host[003-010,012]
    if first is None:
        raise UserError(f"No host in SLURM_STEP_NODELIST={nodes!r}; {_instead()}")
    tasks, local = _slurm_tasks(environ), int(environ["SLURM_LOCALID"])
    shared = tasks > int(environ["SLURM_STEP_NUM_NODES"])
    bound = re.fullmatch("[^,]+", environ.get("CUDA_VISIBLE_DEVICES", "")) is not None
    return Membership(
        coordinator=f"{first[1]}{first[2] or ''}:{61440 + int(environ['SLURM_JOB_ID']) % 4096}",
        num_processes=tasks,
        process_id=int(environ["SLURM_PROCID"]),
        local_device_ids=(local,) if shared and not bound else None,
    )


def _is_tpu_pod(environ: Mapping[str, str]) -> bool:
    """Whether GKE's variables tell of several TPU hosts, in one slice or in several."""
    hosts = next((environ[name] for name in TPU_HOSTS if name in environ), "")
    return len(hosts.split(",")) > 1 or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1


def _instead() -> str:
    return (
        "give --coordinator=HOST:PORT, --num_processes=N and --process_id=I (or "
        f"{COORDINATOR}, {NUM_PROCESSES} and {PROCESS_ID})."
    )


def _connect(membership: Membership, connect_seconds: int, heartbeat_seconds: int) -> None:
    """Call `jax.distributed.initialize` in a thread of its own: too late, it aborts the process."""
    failures: list[Exception] = []

    def initialize() -> None:
        detect = membership.coordinator is None
        try:
            jax.distributed.initialize(
                membership.coordinator,
                membership.num_processes,
                membership.process_id,
                membership.local_device_ids,
                cluster_detection_method=None if detect else "deactivate",
                initialization_timeout=connect_seconds + EXIT_MARGIN_SECONDS,
                heartbeat_timeout_seconds=heartbeat_seconds,
            )
        except Exception as error:  # handed to the thread that waits
            failures.append(error)

    thread = threading.Thread(target=initialize, name="jax.distributed.initialize", daemon=True)
    thread.start()
    thread.join(connect_seconds)
    if thread.is_alive():
        raise NotMet(_not_met(membership, connect_seconds))
    if failures and membership.coordinator is None:
        raise UserError(
            f"JAX detected no job of several processes ({failures[0]}); {_instead()}"
        ) from failures[0]
    if failures:
        raise failures[0]


def _check_port(address: str) -> None:
    """Refuse a HOST:PORT where the coordinator cannot listen; JAX's own attempt can end in a crash."""
    port, dual = int(address.rpartition(":")[2]), socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Cannot listen as the coordinator at port {port}: {error}. Name another port, the same in all "
            "processes: --coordinator=HOST:PORT."
        ) from error


def _not_met(membership: Membership, seconds: int) -> str:
    if membership.coordinator is None:
        return f"The hosts of this job did not find each other within {seconds} s; {_instead()}"
    place = f"the coordinator {membership.coordinator} within {seconds} s"
    if membership.process_id == 0:
        return (
            f"Not all of {membership.num_processes} processes came to {place}. Start as many as "
            "--num_processes says, each with its own --process_id and this --coordinator, or wait longer "
            "with --connect_seconds."
        )
    return (
        f"Process {membership.process_id} of {membership.num_processes} was not let in by {place}. Check "
        "that process 0 runs at that HOST:PORT, that the port is open and that all processes were started: "
        "mend --coordinator, or wait longer with --connect_seconds."
    )


def _exit_status(error: BaseException) -> int:
    if isinstance(error, UserError) or absent_platform(error):
        return 2
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _leave(status: int) -> None:
    """End the process without JAX's farewell, which would wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
