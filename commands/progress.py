"""The one progress bar of the command line, on standard error."""

import sys

from tqdm import tqdm


def progress_bar(total: int | None, what: str, unit: str) -> tqdm:
    """A tqdm bar; where standard error is a file, it writes a line now and then instead of many."""
    watched = sys.stderr.isatty()
    return tqdm(total=total, desc=what, unit=unit, file=sys.stderr, mininterval=0.2 if watched else 30.0, smoothing=0.1)
