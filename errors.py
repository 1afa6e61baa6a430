"""The one error that users are meant to see."""


class InputError(Exception):
    """Bad usage or input: what was got, what was wanted and how to mend it, in one line.

    The command line prints it on standard error and exits with code 2.
    """
