"""The one progress bar of the command line: on standard error, and only where somebody watches."""

import sys

from tqdm import tqdm


def progress_bar(total: int, what: str, unit: str) -> tqdm:
    """A tqdm bar; nothing is drawn where standard error is not a terminal."""
    return tqdm(total=total, desc=what, unit=unit, file=sys.stderr, disable=None, mininterval=0.2, smoothing=0.1)
