"""How a job ends early: input that a user can mend, or a machine that asked for its end."""


class UserError(ValueError):
    """Bad input: the message says what was got, what was expected and what to do.

    The command line prints it as one line without a traceback and exits with status 2; every other
    exception is a defect and keeps its traceback. Source: ours.
    """


class Preempted(Exception):
    """The machine asked the run to end, and the run saved first: the same command continues it.

    The command line prints the message and exits with status 75, sysexits' EX_TEMPFAIL: try again.
    """
