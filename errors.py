"""The two errors that users are meant to see. The command line prints them in one line on standard error."""


class InputError(Exception):
    """Bad usage or input: what was got, what was wanted and how to mend it, in one line. Exit code 2."""


class RunFailed(Exception):
    """It failed on the way: what happened and what is saved, in one line. Exit code 1."""
