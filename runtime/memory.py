"""What fits into the device's memory, as far as is known; what did not is tried again after a while."""

from __future__ import annotations

MEMORY_ERRORS = ("OutOfMemoryError", "MemoryError")  # of torch, which is not imported here, and of Python
SAID = ("out of memory", "can't allocate memory")  # by drivers and allocators, in a RuntimeError
RETRY = 100  # answers until what did not fit is tried again


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what an allocation that failed raises."""
    said = str(error).lower() if isinstance(error, RuntimeError) else ""
    return type(error).__name__ in MEMORY_ERRORS or any(words in said for words in SAID)


class Fitting:
    """Of n choices, the one that wants most memory first, those that are worth trying."""

    def __init__(self, n: int) -> None:
        self._n, self._first, self._answers = n, 0, 0

    def tries(self, wanted: int = 0) -> range:
        """What to try in turn, from `wanted` on; never empty for a choice that there is."""
        return range(max(wanted, self._first), self._n)

    def failed(self, choice: int) -> None:
        """It did not fit; the last one stays, for memory may come back."""
        self._first, self._answers = min(choice + 1, self._n - 1), 0

    def answered(self) -> None:
        """Something fitted; after RETRY answers all choices are worth trying again."""
        self._answers += 1
        if self._answers >= RETRY:
            self._first, self._answers = 0, 0
