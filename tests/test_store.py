"""Folders in a store, and what its failures are taken for."""

import pytest

from eelbert_jax import store
from eelbert_jax.errors import StoreAway, UserError
from eelbert_jax.lease import put
from eelbert_jax.parts import find_parts
from support import buckets


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
    with pytest.raises(UserError, match=r"gs://BUCKET/... or s3://BUCKET/..., got 'ftp://host/run'"):
        store.folder("ftp://host/run")


def test_what_a_scheme_needs_is_named(monkeypatch):
    monkeypatch.setattr(store, "RUNS", {"s3": ("no_such_library", "s3")})
    with pytest.raises(UserError, match=r"s3://bucket/run is read by .*: pip install 'eelbert_jax\[s3\]'"):
        store.folder("s3://bucket/run")


def test_a_store_that_refuses_is_not_taken_for_an_empty_one(bucket):
    for name in ("a/b/c", "a/d"):
        put(f"{buckets.URL}/{name}", b"1")
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
        find_parts(store.folder(f"{buckets.URL}/a/d"))
