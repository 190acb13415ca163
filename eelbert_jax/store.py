"""Folders in an object store: what lies there, and which of its failures pass.

A store knows no rename, no append and no lock. What is used of it all have: put an object whole, put one only
where none is, list, read. A name with "://" belongs to a store, and fsspec finds its library.
"""

import contextlib
import errno
import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from eelbert_jax.errors import Preempted, StoreAway, TryAgain, UserError

RUNS = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""Of stores that can hold runs, by scheme: the library, and the extra of this package that brings it."""
RUNS_SCHEMES = tuple(f"{scheme}://" for scheme in RUNS)
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
    if not os.fspath(path).startswith(RUNS_SCHEMES):
        places = " or ".join(f"{scheme}BUCKET/..." for scheme in RUNS_SCHEMES)
        raise UserError(f"The folder of a run lies here or at {places}, got {os.fspath(path)!r}.")
    library, extra = RUNS[os.fspath(path).partition(":")[0]]
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{os.fspath(path)} is read by {library}: pip install 'eelbert_jax[{extra}]'.")
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


def move(source: str, target: str) -> None:
    """Move a folder of a store object by object: a store knows no rename, and s3fs fails at folders in it."""
    with opened(source) as (system, name):
        place = system._strip_protocol(target)
        for path in system.find(name):
            system.cp_file(path, f"{place}{path[len(name) :]}")
        system.rm(name, recursive=True)


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
        if _status(error) == 412:  # the one condition of ours: that there is none yet
            raise FileExistsError(errno.EEXIST, "there is such an object already", url) from error
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
    status = _status(error)
    if status is not None:
        return status in (408, 409, 429) or status >= 500
    while isinstance(error, OSError) and error.__cause__ is not None:  # told by `failures_of`
        error = error.__cause__
    words = f"{type(error).__name__} {error}"
    refused = any(word in words for word in ("Credential", "Forbidden", "Denied", "Login", "Invalid"))
    return not refused and not isinstance(error, PermissionError | TypeError | LookupError)


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error of a store's library, or what was made of it, tells of."""
    while error is not None:
        response = getattr(error, "response", None)
        described = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        told = (described.get("HTTPStatusCode"), getattr(error, "code", None), getattr(error, "status", None))
        code = str(next(filter(None, told), None))
        if code.isdecimal():
            return int(code)
        error = error.__cause__ if isinstance(error, OSError) else None
    return None


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
        if isinstance(error, OSError | ValueError) and any(s in str(error) for s in RUNS_SCHEMES):
            return True
        error = error.__cause__ or error.__context__
    return False
