"""How a job ends early: input that a user can mend, a machine that asks for its end or does not come."""

import difflib
import functools
import os
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """Bad input: the message says what was got, what was expected and what to do.

    The command line prints it and exits with status 2; any other exception is a defect, with a traceback.
    """


class Preempted(Exception):
    """The machine asked the run to end, and the run saved first: the same command continues it.

    Exit status 75, sysexits' EX_TEMPFAIL: try again.
    """


class TryAgain(Exception):
    """What may pass by itself. Exit status 1, as of a crash: launchers try again a few times."""


class NotMet(TryAgain):
    """The processes of the job did not come together in time: a host may be late, and be there next time."""


class StoreAway(TryAgain):
    """The object store of the workdir does not answer, or does so with failures of its own."""


@functools.cache
def warn_once(text: str) -> None:
    """Print a warning on stderr, each text once a process."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def unknown(what: str, got: str, known: Iterable[str]) -> UserError:
    """Return the error "Unknown WHAT 'GOT'" with the nearest legal name, or with all where none is near."""
    legal = list(known)
    near = difflib.get_close_matches(got, legal, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(legal) or 'none'}."
    return UserError(f"Unknown {what} {got!r}; {hint}")


def missing_setting(error: BaseException) -> UserError | None:
    """Return what it means that a ConfigDict lacks a key that the job reads; None of any other error."""
    frames = traceback.extract_tb(error.__traceback__)
    is_of_config = bool(frames) and "ml_collections" in Path(frames[-1].filename).parts
    name = re.search(r"\w+", str(error))
    if not isinstance(error, LookupError | AttributeError) or not is_of_config or name is None:
        return None
    return UserError(
        f"The config has no {name[0]!r}, which this job reads: name a config of the job by --config=FILE, or "
        "add the key to yours."
    )


_ABSENT = (
    "is not in the list of known backends",
    "Failed to open libtpu",
    "Unknown backend",
    "provides no devices",
)
"""What JAX says of a platform without plugin or device."""


def absent_platform(error: BaseException) -> UserError | None:
    """Return what an error of JAX means where a platform was asked for that is not here; None of any other.

    A platform that fails otherwise may come back (another process holds it): that stays a crash.
    """
    named = [name for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME") if os.environ.get(name)]
    if not named or not isinstance(error, RuntimeError | AssertionError):
        return None
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not frames[-1].filename.endswith("xla_bridge.py"):
        return None
    # Of a GPU that is not there JAX only asserts that it has found some platform.
    if isinstance(error, RuntimeError) and not any(text in str(error) for text in _ABSENT):
        return None
    return UserError(
        f"{named[0]}={os.environ[named[0]]} asks for a platform that this machine or this installation does "
        f"not have ({str(error) or 'no such device was found'}). Unset {named[0]} to run on what is here, or "
        "install JAX's plugin: pip install 'eelbert_jax[cuda]' or 'eelbert_jax[tpu]'."
    )
