"""The one exception for input that a user can mend."""


class UserError(ValueError):
    """Bad input: the message says what was got, what was expected and what to do.

    The command line prints it as one line without a traceback and exits with status 2; every other
    exception is a defect and keeps its traceback. Source: ours.
    """
