"""The lease that takes a lock's place, and what is put under it; memory:// has objects, but no network."""

import json
import threading
import time

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from eelbert_jax import lease, store
from eelbert_jax.errors import UserError
from eelbert_jax.workdir import locked, read_json, write_json
from support import buckets

WORKDIR = "memory://bucket/run"


@pytest.fixture(autouse=True)
def empty_store(monkeypatch):
    """Begin with no object, and let leases go stale fast."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.6)
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.01)


def signs() -> dict[str, dict]:
    system = MemoryFileSystem()
    return {path.rsplit("/", 1)[-1]: json.loads(system.cat_file(path)) for path in system.find("/bucket/run")}


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def ended(monkeypatch):
    """Return what a process that loses its lease says as it ends."""
    told = []

    def end(text):
        told.append(text)
        raise Ended

    monkeypatch.setattr(lease, "end", end)
    return told


def test_a_lease_keeps_others_out_until_it_is_released(capsys):
    with lease.leased(WORKDIR):
        told = r"Another process works in 'memory://bucket/run' \(.*wait for it"
        with pytest.raises(UserError, match=told), lease.leased(WORKDIR):
            pass
        time.sleep(2 * lease.STALE_SECONDS)  # kept alive by its beats
        with pytest.raises(UserError, match="Another process works"), lease.leased(WORKDIR):
            pass
    began = time.monotonic()
    with lease.leased(WORKDIR):
        assert time.monotonic() - began < lease.STALE_SECONDS, "a released one is not waited for"
        assert len(signs()) == 1, "old leases are removed"


def test_of_many_that_begin_at_once_one_works():
    gate, taken, refused = threading.Barrier(8), [], []

    def begin():
        own = lease._Lease(WORKDIR)
        gate.wait()
        try:
            own.take()
            taken.append(own)
        except UserError:
            refused.append(own)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in taken:
        own.release()
    assert (len(taken), len(refused)) == (1, 7)


def silent_lease() -> lease._Lease:
    """Return the lease of a process that gives no sign of life any more."""
    silent = lease._Lease(WORKDIR)
    silent.take()
    silent._ending.set()
    silent._thread.join()
    return silent


def test_a_killed_process_is_waited_for_and_then_followed(capsys):
    silent_lease()
    began = time.monotonic()
    with lease.leased(WORKDIR):
        assert time.monotonic() - began >= lease.STALE_SECONDS
        assert set(signs()) == {"00000002"}
    assert "Waiting up to 1 s for a sign of life" in capsys.readouterr().err


def test_who_was_away_too_long_ends_and_writes_nothing(ended):
    lost = silent_lease()
    lease._held[WORKDIR] = lost
    try:
        taker = lease._Lease(WORKDIR)
        taker.take()
        with pytest.raises(store.Unanswered, match="could not be renewed"):
            lease.put(f"{WORKDIR}/config.json", b"{}", patience=0.0)
        with pytest.raises(Ended):
            lost.renew()
        assert set(signs()) == {"00000002"}
        taker.release()
    finally:
        del lease._held[WORKDIR]
    [told] = ended
    assert told.startswith("error: The lease of memory://bucket/run was taken over by ")


def test_who_was_away_goes_on_where_nobody_took_over():
    away = silent_lease()
    lease._held[WORKDIR] = away
    try:
        time.sleep(lease.STALE_SECONDS)
        threading.Timer(0.2, away.renew).start()
        lease.put(f"{WORKDIR}/config.json", b"{}")
    finally:
        del lease._held[WORKDIR]
    assert MemoryFileSystem().cat_file("/bucket/run/config.json") == b"{}"


class BusyError(Exception):
    """What a store's library raises of too many requests."""

    code = 429


class BusyFileSystem(MemoryFileSystem):
    """A store that is too busy for its first requests."""

    protocol = "busy"
    refusals = 0

    def pipe_file(self, *args, **kwargs):
        if BusyFileSystem.refusals:
            BusyFileSystem.refusals -= 1
            raise BusyError("slow down")
        super().pipe_file(*args, **kwargs)


register_implementation("busy", BusyFileSystem, clobber=True)


def test_a_busy_store_is_asked_again_and_told_of_once(monkeypatch, capsys):
    monkeypatch.setattr(BusyFileSystem, "refusals", 3)
    lease.put("busy://bucket/a", b"1")
    with store.opened("busy://bucket/a") as (system, name):
        assert system.cat_file(name) == b"1"
    assert capsys.readouterr().err.count("WARNING: busy://bucket/a cannot be written (BusyError") == 1


def test_a_store_that_stays_away_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(BusyFileSystem, "refusals", 1000)
    with pytest.raises(store.Unanswered, match="slow down"):
        lease.put("busy://bucket/a", b"1")


def test_a_json_file_is_whole_and_a_missing_one_is_told(bucket):
    workdir = store.folder(f"{buckets.URL}/run")
    with locked(workdir):
        write_json(workdir / "config.json", {"seed": 1})
        assert read_json(workdir / "config.json") == {"seed": 1}
        with pytest.raises(UserError, match=r"gs://bucket/run/other.json cannot be read as JSON"):
            read_json(workdir / "other.json")
