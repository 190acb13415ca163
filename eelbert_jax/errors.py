"""How a job ends early: input that a user can mend, a machine that asks for its end or does not come."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: the message says what was got, what was expected and what to do.

    The command line prints it as one line and exits with status 2; any other exception is a defect and keeps
    its traceback.
    """


class Preempted(Exception):
    """The machine asked the run to end, and the run saved first: the same command continues it.

    The command line prints the message and exits with status 75, sysexits' EX_TEMPFAIL: try again.
    """


class NotMet(Exception):
    """The processes of the job did not come together in time: a host may be late, and the next try meet it.

    The command line prints the message as one line and exits with status 1, as of a crash: launchers try
    again a bounded number of times.
    """


def unknown(what: str, got: str, known: Iterable[str]) -> UserError:
    """Return the error "Unknown WHAT 'GOT'" with the nearest legal name, or with all where none is near."""
    legal = list(known)
    near = difflib.get_close_matches(got, legal, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(legal) or 'none'}."
    return UserError(f"Unknown {what} {got!r}; {hint}")
