"""The ledger: where every tick's time went, what was commanded, and why a deadline was missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import InputError
from .histogram import LatencyHistogram

FORMAT = "ontick-ledger-1"

# Where an answer's time goes. `chunk` is the whole answer, `age` that of the observation behind a command,
# `lateness` how far past its deadline an answer came (0 when in time).
STAGES = ("age", "encode", "inference", "transport", "gate", "lateness", "chunk")

RUN = "run"


class _Page:
    """The entries of one phase."""

    def __init__(self):
        self.stages: dict[str, LatencyHistogram] = {}
        self.counters: Counter[str] = Counter()
        self.miss_causes: Counter[str] = Counter()

    def merge(self, other: _Page) -> None:
        for stage, histogram in other.stages.items():
            self.stages.setdefault(stage, LatencyHistogram()).merge(histogram)
        self.counters.update(other.counters)
        self.miss_causes.update(other.miss_causes)

    def summary(self) -> dict[str, Any]:
        stages_ms = {stage: self.stages[stage].summary_ms() for stage in STAGES if stage in self.stages}
        return {"stages_ms": stages_ms, "counters": dict(self.counters), "miss_causes": dict(self.miss_causes)}

    def to_dict(self) -> dict[str, Any]:
        stages = {stage: histogram.to_dict() for stage, histogram in self.stages.items()}
        return {"stages": stages, "counters": dict(self.counters), "miss_causes": dict(self.miss_causes)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _Page:
        page = cls()
        page.stages = {_known(stage): LatencyHistogram.from_dict(entry) for stage, entry in data["stages"].items()}
        page.counters.update({str(name): int(n) for name, n in data["counters"].items()})
        page.miss_causes.update({str(cause): int(n) for cause, n in data["miss_causes"].items()})
        return page


class Ledger:
    """Histograms of stages, counters and causes of misses, one page a phase.

    Entries go to the page "run" unless a phase is open, so that a warm-up can never be taken for a measurement.
    """

    def __init__(self):
        self._pages = {RUN: _Page()}
        self._open = RUN

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Enter what happens inside on a page of its own: `with ledger.phase("warm-up")`."""
        before, self._open = self._open, name
        self._pages.setdefault(name, _Page())
        try:
            yield
        finally:
            self._open = before

    def record(self, stage: str, seconds: float) -> None:
        """Enter a duration [s] of one of STAGES. Raises ValueError for another stage or a negative duration."""
        self._pages[self._open].stages.setdefault(_known(stage), LatencyHistogram()).record(seconds)

    def count(self, event: str, n: int = 1) -> None:
        """Add `n` to the counter of an event."""
        self._pages[self._open].counters[event] += n

    def miss(self, cause: str) -> None:
        """Count an answer that came after its deadline, and why: the stage that took the time, or a word."""
        self.count("misses")
        self._pages[self._open].miss_causes[cause] += 1

    def stage(self, stage: str, phase: str = RUN) -> LatencyHistogram:
        """The histogram of a stage; empty if nothing was entered."""
        page = self._pages.get(phase, _Page())
        return page.stages.get(_known(stage), LatencyHistogram())

    def counter(self, event: str, phase: str = RUN) -> int:
        """How often an event was counted."""
        return self._pages.get(phase, _Page()).counters[event]

    def merge(self, other: Ledger) -> None:
        """Add the entries of `other`, phase by phase: a run's ledger is the sum of its workers'."""
        for name, page in other._pages.items():
            self._pages.setdefault(name, _Page()).merge(page)

    def summary(self) -> dict[str, Any]:
        """What to print: {"stages_ms": {stage: {n, p50, p99, p99.9, max}}, "counters", "miss_causes", "phases"}.

        The first three are of the run; "phases" holds the same for each other phase.
        """
        others = {name: page.summary() for name, page in self._pages.items() if name != RUN}
        return {**self._pages[RUN].summary(), "phases": others}

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON data."""
        return {"format": FORMAT, "phases": {name: page.to_dict() for name, page in self._pages.items()}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ledger:
        """Undo `to_dict`. Raises InputError when the data is not a ledger."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            got = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InputError(f"got {got!r} for a ledger, wanted the format {FORMAT!r}: write it with this version")
        ledger = cls()
        try:
            ledger._pages.update({name: _Page.from_dict(page) for name, page in data["phases"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"got a damaged ledger ({error}), wanted what to_dict() wrote: write it again") from None
        return ledger


def _known(stage: str) -> str:
    if stage not in STAGES:
        raise ValueError(f"got the stage {stage!r}, wanted one of {', '.join(STAGES)}")
    return stage
