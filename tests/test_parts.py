"""Files that grow in a store: read as one, put at a bounded rate."""

import contextlib

from eelbert_jax import parts, store
from eelbert_jax.training.writer import Writer, read_metrics, shown_events
from eelbert_jax.workdir import METRICS_NAME, TENSORBOARD_NAME
from support import buckets


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
    monkeypatch.setattr(parts, "PART_BYTES", 100)
    path = store.folder(f"{buckets.URL}/log")
    growing = parts.Parts(str(path))
    for number in range(1000):
        growing.write(b"%03d\n" % number)
        growing.flush()
    assert len(puts) == 1, "the first is due at once, the next after PART_SECONDS"
    growing.close()
    content = b"".join(part.read_bytes() for part in parts.find_parts(path))
    assert content == b"".join(b"%03d\n" % number for number in range(1000))
    growing = parts.Parts(str(path))
    growing.write(b"end\n")
    growing.close()
    assert [part.name for part in parts.find_parts(path)] == ["log.000001", "log.000002"]
