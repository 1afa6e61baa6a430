"""A live view of a drive: the numbers of its rings over time, in Rerun's viewer or in a file for it.

view = LiveView.start({"commands": ring}, "viewer")       # or a name that ends in .rrd
...
view.stop()
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import check_place
from .child import Child, Parent
from .recording_file import check_dtype
from .rings import Ring

VIEWER = "viewer"
TIMELINE = "time"
REST_S = 0.05  # between looks at the rings: a screen shows no more
STOPPED_WITHIN_S = 3.0


class LiveView:
    """A process that shows what is put into rings. Nobody waits for it, and nobody notices when it is closed."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @classmethod
    def start(cls, rings: Mapping[str, Ring], to: str | Path = VIEWER) -> LiveView:
        """Begin to show. to: "viewer" opens one, rerun+http://HOST:PORT/proxy asks one that runs, FILE.rrd is written.

        Raises InputError for another `to`, records without "time_s", or without the package rerun-sdk.
        """
        for topic, ring in rings.items():
            check_dtype(topic, ring.dtype)
        import_rerun()
        to = str(to)
        if to.endswith(".rrd"):
            to = str(check_place(Path(to).absolute()))
        elif to != VIEWER and not to.startswith("rerun+http"):
            raise InputError(f"got {to!r} to show to, wanted {VIEWER}, FILE.rrd or rerun+http://HOST:PORT/proxy")
        return cls(Child("ontick-view", _show, dict(rings), to))

    @property
    def is_alive(self) -> bool:
        return self._child.is_alive

    def stop(self) -> None:
        """Show what is left and end; again is no error."""
        self._child.stop(STOPPED_WITHIN_S)


def import_rerun() -> Any:
    """The package, or InputError."""
    try:
        return importlib.import_module("rerun")
    except ModuleNotFoundError:
        raise InputError('a live view needs the package rerun-sdk: pip install "ontick[view]"') from None


def open_view(rerun: Any, to: str) -> None:
    """Send what is logged from now on to a viewer or a file."""
    rerun.init("ontick drive")
    if to == VIEWER:
        rerun.spawn()
    elif to.endswith(".rrd"):
        rerun.save(to)
    else:
        rerun.connect_grpc(to)


def log_record(rerun: Any, topic: str, record: np.void) -> None:
    """Show a record's numbers at its time: a field of n numbers is n lines of one plot."""
    rerun.set_time(TIMELINE, duration=float(record["time_s"]))
    for name, value in numbers(record):
        rerun.log(f"{topic}/{name}", rerun.Scalars(value))


def numbers(record: np.void) -> Iterator[tuple[str, np.ndarray]]:
    """The fields that are numbers or truth values, but for the time, as float64 [n]."""
    assert record.dtype.names is not None
    for name in record.dtype.names:
        if name != "time_s" and record.dtype[name].base.kind in "fiub":
            yield name, np.asarray(record[name], np.float64).reshape(-1)


def _show(rings: dict[str, Ring], to: str, parent: Parent) -> None:
    rerun = import_rerun()
    open_view(rerun, to)
    ended = False
    while not ended:
        ended = parent.wants_end(REST_S)
        for topic, ring in rings.items():
            for record in ring.take():
                log_record(rerun, topic, record)
