"""Files in an object store: whole objects, a lease in place of a lock, files that grow as numbered parts.

A store knows no rename, no append and no lock. What is used of it all have: put an object whole, put one only
where none is, list, read. A name with "://" belongs to a store, and fsspec finds its library.
"""

import contextlib
import json
import logging
import os
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from eelbert_jax.errors import Preempted, StoreAway, TryAgain, UserError

LEASE_NAME = ".lease"
BEAT_SECONDS = 10.0
"""Between two signs of life of the run that has the lease."""
STALE_SECONDS = 60.0
"""After so long without one another run may take the lease, and whoever has it writes nothing."""
PATIENCE_SECONDS = 600.0
"""So long a store that does not answer is asked again."""
RETRY_SECONDS = 5.0
PART_SECONDS = 10.0
"""What was written to a file that grows is put into the store at most so often."""
PART_BYTES = 1 << 20
RUNS_SCHEME = "gs://"
"""Of stores that can hold runs: Orbax (0.12) writes to no other."""
LIBRARIES = ("gcsfs", "s3fs", "aiohttp", "aiobotocore", "botocore", "google", "requests", "urllib3")


class Unanswered(OSError):
    """The store, or the way to it, failed as it does now and then: the same request may succeed later."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path leads to a store."""
    return "://" in os.fspath(path)


def folder(path: str | os.PathLike[str]) -> Path:
    """Return the path of a folder here (~ is the home), or of one in a store, which reads like one."""
    if not is_url(path):
        return Path(path).expanduser()
    if not os.fspath(path).startswith(RUNS_SCHEME):
        raise UserError(
            f"The folder of a run lies here or at {RUNS_SCHEME}BUCKET/..., got {os.fspath(path)!r}."
        )
    from etils import epath

    _import_fsspec()
    return cast(Path, epath.Path(os.fspath(path).rstrip("/")))


def _import_fsspec() -> Any:
    import fsspec  # only here: the import takes long, and few runs need it

    for protocol in ("gs", "gcs", "s3"):  # other processes write there too
        fsspec.config.conf.setdefault(protocol, {})["use_listings_cache"] = False
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what fails is raised, and told once
    return fsspec


@contextlib.contextmanager
def opened(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of a store and the path in it; what fails in the block is an OSError."""
    with failures_of(url):
        system, name = _import_fsspec().core.url_to_fs(url)
        system.invalidate_cache()
        yield system, name


def listing(url: str) -> dict[str, bool]:
    """Return by name what lies in a folder of a store, and whether it is a folder; {} where there is none.

    Unlike fsspec's `exists` and `isdir` it tells a store that does not answer from one without such objects.
    """
    with contextlib.suppress(FileNotFoundError), opened(url) as (system, path):
        entries = {
            entry["name"].rstrip("/"): entry["type"] == "directory" for entry in system.ls(path, detail=True)
        }
        return {name.rsplit("/", 1)[-1]: is_folder for name, is_folder in entries.items() if name != path}
    return {}


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, names of folders in it, names of files), as `os.walk` does, here or in a store."""
    if not is_url(root):
        for name, below, files in os.walk(root):
            yield Path(name), below, files
        return
    found = listing(str(root))
    below = [name for name, is_folder in found.items() if is_folder]
    yield root, below, [name for name, is_folder in found.items() if not is_folder]
    for name in below:
        yield from walk(root / name)


@contextlib.contextmanager
def failures_of(url: str) -> Iterator[None]:
    """Turn whatever the library of a store raises into an OSError that names the URL."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, "no such object or bucket", url) from error
    except FileExistsError:
        raise
    except ImportError as error:
        raise OSError(None, f"the library of this kind of store is not installed ({error})", url) from error
    except Exception as error:  # of any library of any store: credentials, network, bad names
        kind = Unanswered if _may_pass(error) else OSError
        advice = "check the name, and that this machine has credentials for it"
        raise kind(None, f"{_reason(error)}; {advice}", url) from error


def _reason(error: BaseException) -> str:
    text = (str(error).strip() or "no reason given").splitlines()[0]
    return f"{type(error).__name__}: {text}"


def says_nothing(error: BaseException) -> bool:
    """Whether a failure to read says nothing of the object: the store did not answer."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and _may_pass(error)


def _may_pass(error: BaseException) -> bool:
    """Whether a store's error is none of the request: no answer, too many requests, a failure on its side."""
    if isinstance(error, OSError) and error.__cause__ is not None:  # told by `failures_of`
        error = error.__cause__
    response = getattr(error, "response", None)
    described = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    code = described.get("HTTPStatusCode") or getattr(error, "code", None) or getattr(error, "status", None)
    if str(code).isdecimal():
        return int(str(code)) in (408, 429) or int(str(code)) >= 500
    words = f"{type(error).__name__} {error}"
    refused = any(word in words for word in ("Credential", "Forbidden", "Denied", "Login", "Invalid"))
    return not refused and not isinstance(error, PermissionError | TypeError | LookupError)


@contextlib.contextmanager
def explained(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a store raises in the block, through whatever library, into one line."""
    try:
        yield
    except Exception as error:
        told = isinstance(error, UserError | TryAgain | Preempted)
        if told or not is_url(workdir) or not _is_of_a_store(error):
            raise
        text = f"The store of {workdir} failed: {_reason(error)}."
        if not _may_pass(error):
            raise UserError(
                f"{text} Check the name, and that this machine has credentials for it."
            ) from error
        raise StoreAway(f"{text} What was saved stands; the same command continues from it.") from error


def _is_of_a_store(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__module__.partition(".")[0] in LIBRARIES or isinstance(error, Unanswered):
            return True
        if isinstance(error, OSError | ValueError) and RUNS_SCHEME in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def put(url: str, data: bytes, patience: float | None = None) -> None:
    """Put an object whole, asking a store that does not answer again until `patience` (seconds) is over."""
    deadline = time.monotonic() + (PATIENCE_SECONDS if patience is None else patience)
    told = False
    while True:
        for workdir, lease in tuple(_held.items()):
            if url.startswith(f"{workdir}/"):
                lease.wait_until_certain(deadline)
        try:
            with opened(url) as (system, name):
                system.pipe_file(name, data)
            return
        except Unanswered as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                _tell(f"WARNING: {url} cannot be written ({error.strerror}): trying again.")
            told = True
        time.sleep(RETRY_SECONDS)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Parts:
    """A file that only grows, as objects NAME.000001, NAME.000002, ... that are read one after the other.

    The newest is put anew, whole, as it grows. A later start of the run begins a part of its own. A kill
    loses what was written since the last `sync` or `flush` that was due, `PART_SECONDS` after the one before.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        earlier = parts(folder(path))
        self._number = int(earlier[-1].name[-6:]) + 1 if earlier else 1
        self._content, self._size = bytearray(), 0
        self._due, self._answered = 0.0, time.monotonic()

    def write(self, data: bytes) -> None:
        """Add to the file, here."""
        self._content += data

    def flush(self) -> None:
        """Put what was added into the store if it is time; where that fails, at a later time."""
        if time.monotonic() < self._due:
            return
        try:
            self.sync(patience=0.0)
        except Unanswered:
            if time.monotonic() - self._answered > PATIENCE_SECONDS:
                raise
            self._due = time.monotonic() + PART_SECONDS

    def sync(self, patience: float | None = None) -> None:
        """Put what was added into the store."""
        if len(self._content) > self._size:
            put(f"{self._path}.{self._number:06d}", bytes(self._content), patience)
            self._size = len(self._content)
            if self._size >= PART_BYTES:
                self._number += 1
                self._content, self._size = bytearray(), 0
        self._answered = time.monotonic()
        self._due = self._answered + PART_SECONDS

    def close(self) -> None:
        """Put what is left into the store."""
        self.sync()


def parts(path: Path) -> list[Path]:
    """Return the parts of a file that grows, in order; none where there is no such file."""
    if is_url(path):
        names = list(listing(str(path.parent)))
    else:
        names = os.listdir(path.parent) if path.parent.is_dir() else []
    pattern = re.compile(re.escape(path.name) + r"\.[0-9]{6}")
    return [path.with_name(name) for name in sorted(filter(pattern.fullmatch, names))]


class _Sign(NamedTuple):
    """The newest sign of life in a workdir: of which lease, and what it says."""

    number: int
    holder: str
    beat: int
    released: bool


class _Lease:
    """The right to write to a workdir, as the object `.lease/NUMBER` of the highest number.

    Its holder renews it by a beat every `BEAT_SECONDS`; taking it over is putting the next number where none
    is, which only one can. Whoever finds a higher number than its own has lost.
    """

    def __init__(self, workdir: str) -> None:
        self._workdir, self._folder = workdir, f"{workdir}/{LEASE_NAME}"
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._number = self._beat = 0
        self._certain = time.monotonic()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def take(self) -> None:
        """Take the lease; wait for one without beats to become stale, refuse where there is a beat."""
        sign, since = self._newest(), time.monotonic()
        if sign is not None and not sign.released:
            _tell(
                f"Waiting up to {STALE_SECONDS:.0f} s for a sign of life of {sign.holder} in {self._workdir}."
            )
        while sign is not None and not sign.released and time.monotonic() - since < STALE_SECONDS:
            time.sleep(BEAT_SECONDS / 10)
            now = self._newest()
            if now != sign and not (now is None or now.released):
                raise self._refusal(now.holder)
            sign = now
        self._number = 1 if sign is None else sign.number + 1
        asked = time.monotonic()
        with contextlib.suppress(FileExistsError):  # perhaps by this very request, sent again
            self._put(mode="create")
        sign = self._newest()
        if sign is None or not self._is_ours(sign):
            raise self._refusal("one that began at the same moment" if sign is None else sign.holder)
        self._certain = asked
        self._remove_older()
        self._thread.start()

    def _refusal(self, holder: str) -> UserError:
        return UserError(
            f"Another process works in '{self._workdir}' ({holder}): wait for it, stop it, or take another "
            "--workdir."
        )

    def _is_ours(self, sign: _Sign) -> bool:
        return (sign.number, sign.holder) == (self._number, self._holder)

    def _newest(self) -> _Sign | None:
        while names := listing(self._folder):
            number = max(map(int, names))
            with contextlib.suppress(FileNotFoundError):  # removed between the two looks
                with opened(f"{self._folder}/{number:08d}") as (system, name):
                    content = json.loads(system.cat_file(name))
                return _Sign(number, content["holder"], content["beat"], content["released"])
        return None

    def _put(self, *, released: bool = False, mode: str = "overwrite") -> None:
        self._beat += 1
        content = {"holder": self._holder, "beat": self._beat, "released": released}
        with opened(f"{self._folder}/{self._number:08d}") as (system, name):
            system.pipe_file(name, json.dumps(content).encode(), mode=mode)

    def _remove_older(self) -> None:
        with contextlib.suppress(OSError):
            for number in listing(self._folder):
                if int(number) < self._number:
                    with opened(f"{self._folder}/{number}") as (system, name):
                        system.rm_file(name)

    def renew(self) -> None:
        """Give a sign of life; end the process where another one has the lease."""
        asked = time.monotonic()
        sign = self._newest()
        if sign is None or not self._is_ours(sign):
            taker = "was removed" if sign is None else f"was taken over by {sign.holder}"
            silent = time.monotonic() - self._certain
            end(
                f"error: The lease of {self._workdir} {taker}, after {silent:.0f} s without a sign of life "
                "of this process: it writes nothing more. Start it again once the other one has ended."
            )
        self._put()
        self._certain = asked

    def _beat_on(self) -> None:
        while not self._ending.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the store is away: until it is back nothing is written
                self.renew()

    def wait_until_certain(self, deadline: float) -> None:
        """Wait while the last beat is so long ago that another process may have the lease."""
        while time.monotonic() - self._certain > STALE_SECONDS - BEAT_SECONDS:
            if time.monotonic() > deadline:
                raise Unanswered(None, "the lease could not be renewed", self._workdir)
            time.sleep(BEAT_SECONDS / 10)

    def release(self) -> None:
        """Let the next process begin at once."""
        self._ending.set()
        self._thread.join(STALE_SECONDS)
        with contextlib.suppress(OSError):
            self.renew()
            self._put(released=True)


_held: dict[str, _Lease] = {}
"""By workdir, what this process has the right to write to."""


def end(text: str) -> None:
    """End the process at once: not even what other threads are about to write gets written."""
    _tell(text)
    os._exit(2)


@contextlib.contextmanager
def leased(workdir: str) -> Iterator[None]:
    """Keep every other process out of a workdir in a store until the block ends.

    A killed process is believed dead after `STALE_SECONDS`. One that could not renew its lease for so long
    (stopped, cut off) writes nothing until it has found that nobody took it, and else ends with status 2.
    """
    lease = _Lease(workdir)
    lease.take()
    _held[workdir] = lease
    try:
        yield
    finally:
        del _held[workdir]
        lease.release()
