"""The thread rule: what is captured or compiled with buffers of its own is run by one thread."""

import threading

from ...errors import InputError


class OneThread:
    """Belongs to the first thread that uses it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._owners: dict[str, int] = {}

    def check(self) -> None:
        """Raises InputError on any thread but the first."""
        me = threading.get_ident()
        if self._owners.setdefault("first", me) != me:  # atomic, so two that begin at once cannot both be first
            raise InputError(
                f"{self._what} was set up on another thread and its buffers are that thread's; build a program for "
                "each thread"
            )
