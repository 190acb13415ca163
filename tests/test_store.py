"""Files in a store, and the lease that takes a lock's place; memory:// has objects, but no network."""

import contextlib
import json
import threading
import time

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from eelbert_jax import store
from eelbert_jax.errors import StoreAway, UserError
from eelbert_jax.training.writer import Writer, read_metrics, shown_events
from eelbert_jax.workdir import METRICS_NAME, TENSORBOARD_NAME, locked, read_json, write_json
from support import buckets

WORKDIR = "memory://bucket/run"


@pytest.fixture(autouse=True)
def empty_store(monkeypatch):
    """Begin with no object, and let leases go stale fast."""
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(store, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(store, "STALE_SECONDS", 0.6)
    monkeypatch.setattr(store, "RETRY_SECONDS", 0.01)


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

    monkeypatch.setattr(store, "end", end)
    return told


def test_a_lease_keeps_others_out_until_it_is_released(capsys):
    with store.leased(WORKDIR):
        told = r"Another process works in 'memory://bucket/run' \(.*wait for it"
        with pytest.raises(UserError, match=told), store.leased(WORKDIR):
            pass
        time.sleep(2 * store.STALE_SECONDS)  # kept alive by its beats
        with pytest.raises(UserError, match="Another process works"), store.leased(WORKDIR):
            pass
    began = time.monotonic()
    with store.leased(WORKDIR):
        assert time.monotonic() - began < store.STALE_SECONDS, "a released one is not waited for"
        assert len(signs()) == 1, "old leases are removed"


def test_of_many_that_begin_at_once_one_works():
    gate, taken, refused = threading.Barrier(8), [], []

    def begin():
        lease = store._Lease(WORKDIR)
        gate.wait()
        try:
            lease.take()
            taken.append(lease)
        except UserError:
            refused.append(lease)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lease in taken:
        lease.release()
    assert (len(taken), len(refused)) == (1, 7)


def silent_lease() -> store._Lease:
    """Return the lease of a process that gives no sign of life any more."""
    lease = store._Lease(WORKDIR)
    lease.take()
    lease._ending.set()
    lease._thread.join()
    return lease


def test_a_killed_process_is_waited_for_and_then_followed(capsys):
    silent_lease()
    began = time.monotonic()
    with store.leased(WORKDIR):
        assert time.monotonic() - began >= store.STALE_SECONDS
        assert set(signs()) == {"00000002"}
    assert "Waiting up to 1 s for a sign of life" in capsys.readouterr().err


def test_who_was_away_too_long_ends_and_writes_nothing(ended):
    lost = silent_lease()
    store._held[WORKDIR] = lost
    try:
        taker = store._Lease(WORKDIR)
        taker.take()
        with pytest.raises(store.Unanswered, match="could not be renewed"):
            store.put(f"{WORKDIR}/config.json", b"{}", patience=0.0)
        with pytest.raises(Ended):
            lost.renew()
        assert set(signs()) == {"00000002"}
        taker.release()
    finally:
        del store._held[WORKDIR]
    [told] = ended
    assert told.startswith("error: The lease of memory://bucket/run was taken over by ")


def test_who_was_away_goes_on_where_nobody_took_over():
    lease = silent_lease()
    store._held[WORKDIR] = lease
    try:
        time.sleep(store.STALE_SECONDS)
        threading.Timer(0.2, lease.renew).start()
        store.put(f"{WORKDIR}/config.json", b"{}")
    finally:
        del store._held[WORKDIR]
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
    store.put("busy://bucket/a", b"1")
    with store.opened("busy://bucket/a") as (system, name):
        assert system.cat_file(name) == b"1"
    assert capsys.readouterr().err.count("WARNING: busy://bucket/a cannot be written (BusyError") == 1


def test_a_store_that_stays_away_ends_in_one_line(monkeypatch):
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(BusyFileSystem, "refusals", 1000)
    with pytest.raises(store.Unanswered, match="slow down"):
        store.put("busy://bucket/a", b"1")


@pytest.mark.parametrize(
    ("code", "error"),
    [(503, StoreAway), (429, StoreAway), (408, StoreAway), (403, UserError), (400, UserError)],
)
def test_what_a_library_raises_is_told_by_what_can_be_done(code, error):
    answered = type("HttpError", (Exception,), {"code": code, "__module__": "gcsfs.retry"})
    told = "The store of gs://bucket/run failed: HttpError: why"
    with pytest.raises(error, match=told), store.explained("gs://bucket/run"):
        raise answered("why")


@pytest.mark.parametrize(("workdir", "error"), [("gs://bucket/run", KeyError("a")), ("runs/a", OSError("a"))])
def test_defects_and_folders_of_this_machine_are_left_alone(workdir, error):
    with pytest.raises(type(error)), store.explained(workdir):
        raise error


def test_other_schemes_are_refused():
    with pytest.raises(UserError, match=r"here or at gs://BUCKET/..., got 'ftp://host/run'"):
        store.folder("ftp://host/run")


def test_a_resumed_run_reads_as_one_and_loses_nothing_when_synced(bucket, tmp_path):
    """The same calls on a folder give the same records and the same events."""
    for place in (workdir := store.folder(f"{buckets.URL}/run"), tmp_path):
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(Writer(place, 10, None, tensorboard=True))
            for step in range(4):
                writer.scalars(step, {"loss": 1.0 * step})
            writer.sync()
            assert [record["step"] for record in read_metrics(place / METRICS_NAME)] == [0, 1, 2, 3]
        with Writer(place, 10, 2, tensorboard=True) as writer:
            writer.scalars(3, {"loss": 30.0})
    assert read_metrics(workdir / METRICS_NAME) == read_metrics(tmp_path / METRICS_NAME)
    assert shown_events(workdir / TENSORBOARD_NAME) == shown_events(tmp_path / TENSORBOARD_NAME)
    assert read_metrics(workdir / METRICS_NAME)[-1] == {"step": 3, "loss": 30.0}
    with Writer(workdir, 10, None, tensorboard=False) as writer:
        writer.scalars(0, {"loss": 7.0})
    assert read_metrics(workdir / METRICS_NAME) == [{"step": 0, "loss": 7.0}]


def test_parts_are_put_at_a_bounded_rate_and_none_grows_without_end(bucket, monkeypatch):
    puts = []
    bucket.fault = lambda method, path: puts.append(path) if method == "POST" else None
    monkeypatch.setattr(store, "PART_BYTES", 100)
    path = store.folder(f"{buckets.URL}/log")
    parts = store.Parts(str(path))
    for number in range(1000):
        parts.write(b"%03d\n" % number)
        parts.flush()
    assert len(puts) == 1, "the first is due at once, the next after PART_SECONDS"
    parts.close()
    content = b"".join(part.read_bytes() for part in store.parts(path))
    assert content == b"".join(b"%03d\n" % number for number in range(1000))
    parts = store.Parts(str(path))
    parts.write(b"end\n")
    parts.close()
    assert [part.name for part in store.parts(path)] == ["log.000001", "log.000002"]


def test_a_store_that_refuses_is_not_taken_for_an_empty_one(bucket):
    for name in ("a/b/c", "a/d"):
        store.put(f"{buckets.URL}/{name}", b"1")
    assert store.listing(f"{buckets.URL}/a") == {"b": True, "d": False}
    assert store.listing(f"{buckets.URL}/none") == {}
    assert [names for _, *names in store.walk(store.folder(f"{buckets.URL}/a"))] == [
        [["b"], ["d"]],
        [[], ["c"]],
    ]
    bucket.fault = lambda method, path: 403
    with pytest.raises(OSError, match="Forbidden"):
        store.listing(f"{buckets.URL}/a")
    with pytest.raises(UserError, match="Forbidden"), store.explained(buckets.URL):
        store.parts(store.folder(f"{buckets.URL}/a/d"))


def test_a_json_file_is_whole_and_a_missing_one_is_told(bucket):
    workdir = store.folder(f"{buckets.URL}/run")
    with locked(workdir):
        write_json(workdir / "config.json", {"seed": 1})
        assert read_json(workdir / "config.json") == {"seed": 1}
        with pytest.raises(UserError, match=r"gs://bucket/run/other.json cannot be read as JSON"):
            read_json(workdir / "other.json")
