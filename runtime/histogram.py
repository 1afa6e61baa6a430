"""A latency histogram: 1 us to 1 hour, three significant digits, the maximum exact."""

from __future__ import annotations

import math
from typing import Any

from ..errors import InputError

LOWEST_US, HIGHEST_US, DIGITS = 1, 3_600_000_000, 3


def rank_at(percentile: float, n: int) -> int:
    """How many of `n` samples must lie at or below the percentile's value (1..n): never fewer than its share."""
    # The small number keeps 99.9 % of 1000 at 999, whatever the rounding of the product.
    return min(n, max(1, math.ceil(percentile * n / 100 - 1e-9)))


def _hdr() -> Any:
    """The library's class, imported on first use: a clock and a budget do without it."""
    from hdrh.histogram import HdrHistogram

    return HdrHistogram


class LatencyHistogram:
    """Counts durations in buckets, so that any percentile can be asked for later and runs can be added up."""

    def __init__(self):
        self._counts = _hdr()(LOWEST_US, HIGHEST_US, DIGITS)
        self.max_s = 0.0

    @property
    def n(self) -> int:
        return self._counts.get_total_count()

    def record(self, seconds: float) -> None:
        """Enter one duration [s]. Raises ValueError if it is negative or not finite."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a duration is finite and not negative: got {seconds} s")
        self._counts.record_value(min(round(seconds * 1e6), HIGHEST_US))
        self.max_s = max(self.max_s, seconds)

    def percentile_s(self, percentile: float) -> float:
        """The duration [s] that `percentile` % of the entries do not exceed; 0 when empty."""
        if self.n == 0:
            return 0.0
        # The library rounds to the nearest rank, which may be one too low: ask for the rank itself.
        share = 100.0 * rank_at(percentile, self.n) / self.n
        return min(self._counts.get_value_at_percentile(share) * 1e-6, self.max_s)

    def merge(self, other: LatencyHistogram) -> None:
        """Add the entries of `other`."""
        if other.n:
            self._counts.add(other._counts)
        self.max_s = max(self.max_s, other.max_s)

    def summary_ms(self) -> dict[str, float]:
        """{"n", "p50", "p99", "p99.9", "max"}, the durations in ms."""
        percentiles = {f"p{p:g}": self.percentile_s(p) * 1e3 for p in (50, 99, 99.9)}
        return {"n": self.n, **percentiles, "max": self.max_s * 1e3}

    def to_dict(self) -> dict[str, Any]:
        return {"max_s": self.max_s, "hdr": self._counts.encode().decode("ascii")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LatencyHistogram:
        """Undo `to_dict`. Raises InputError when the data is not a histogram of ours."""
        histogram = cls()
        try:
            counts = _hdr().decode(data["hdr"].encode("ascii"))
            assert counts is not None  # the library returns None where its C part is missing
            histogram._counts.add(counts)
            histogram.max_s = float(data["max_s"])
        except Exception as error:
            wanted = "wanted what LatencyHistogram.to_dict() wrote"
            raise InputError(
                f"got a histogram that cannot be read ({error}), {wanted}: write the ledger again"
            ) from None
        return histogram
