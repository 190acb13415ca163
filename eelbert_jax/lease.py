"""The right to write to a workdir in an object store: a lease takes the place of a lock, `put` heeds it."""

import contextlib
import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eelbert_jax.errors import UserError
from eelbert_jax.store import Unanswered, listing, opened

LEASE_NAME = ".lease"
BEAT_SECONDS = 10.0
"""Between two signs of life of the run that has the lease."""
STALE_SECONDS = 60.0
"""After so long without one another run may take the lease, and whoever has it writes nothing."""
PATIENCE_SECONDS = 600.0
"""So long a store that does not answer is asked again."""
RETRY_SECONDS = 5.0


def put(url: str, data: bytes | Path, patience: float | None = None) -> None:
    """Put bytes or a file here as an object, whole.

    A store that does not answer is asked again until `patience` (seconds) is over.
    """
    deadline = time.monotonic() + (PATIENCE_SECONDS if patience is None else patience)
    told = False
    while True:
        make_certain(url, deadline)
        try:
            with opened(url) as (system, name):
                if isinstance(data, Path):
                    system.put_file(os.fspath(data), name)
                else:
                    system.pipe_file(name, data)
            return
        except Unanswered as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                _tell(f"WARNING: {url} cannot be written ({error.strerror}): trying again.")
            told = True
        time.sleep(RETRY_SECONDS)


def make_certain(url: str, deadline: float = math.inf) -> None:
    """Wait until no other process can have taken the lease of the workdir that a URL lies in."""
    for workdir, lease in tuple(_held.items()):
        if url.startswith(f"{workdir}/"):
            lease.wait_until_certain(deadline)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
