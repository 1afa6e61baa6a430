"""Latency traces: what the answers of some machine cost, kept as JSON and played back on another."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import write_whole
from .histogram import rank_at

FORMAT = "ontick-latency-trace-1"


@dataclass(frozen=True)
class LatencyTrace:
    """Batch-1 latencies of plans on one machine: `machine` as `describe_machine` gives it, `latency_ms` by plan.

    Raises InputError when a plan has no latency, or one that is negative or not finite.
    """

    machine: Mapping[str, Any]
    latency_ms: Mapping[str, Sequence[float]]

    def __post_init__(self):
        for plan, samples in self.latency_ms.items():
            if len(samples) == 0 or not all(_is_latency(sample) for sample in samples):
                got = f"latency trace: got no or impossible latencies for plan {plan!r}"
                raise InputError(f"{got}, wanted finite numbers of ms, not negative: measure the plan again")

    def latencies_s(self, plan: str) -> np.ndarray:
        """The latencies [n] of a plan in seconds. Raises InputError for a plan that was not measured."""
        if plan not in self.latency_ms:
            known = ", ".join(sorted(self.latency_ms)) or "none"
            raise InputError(f"got the plan {plan!r}, wanted one in the latency trace ({known}): measure it first")
        return np.asarray(self.latency_ms[plan], dtype=np.float64) * 1e-3

    def to_dict(self) -> dict[str, Any]:
        plans = {plan: _plan_entry(samples) for plan, samples in self.latency_ms.items()}
        return {"format": FORMAT, "machine": dict(self.machine), "plans": plans}

    def save(self, path: str | Path) -> Path:
        """Write the trace as JSON, whole or not at all."""
        return write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_dict(cls, data: Any, source: str = "latency trace") -> LatencyTrace:
        """Undo `to_dict`. Raises InputError naming `source` when the data is something else."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            got = data.get("format") if isinstance(data, dict) else type(data).__name__
            raise InputError(f"{source}: got the format {got!r}, wanted {FORMAT!r}: write it with LatencyTrace.save()")
        try:
            return cls(
                dict(data["machine"]), {plan: list(entry["latency_ms"]) for plan, entry in data["plans"].items()}
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            wanted = 'wanted "machine" and "plans", each plan with "latency_ms"'
            raise InputError(f"{source}: got a damaged trace ({error!r}), {wanted}: measure it again") from None

    @classmethod
    def load(cls, path: str | Path) -> LatencyTrace:
        """Read a trace. Raises InputError when the file is missing or not a trace."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}), wanted a latency trace") from None
        except ValueError as error:
            raise InputError(f"{path}: got no JSON ({error}), wanted a latency trace: measure it again") from None
        return cls.from_dict(data, source=str(path))


def _plan_entry(samples_ms: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(float(sample) for sample in samples_ms)
    p50, p99 = (ordered[rank_at(percentile, len(ordered)) - 1] for percentile in (50, 99))
    facts = {"n": len(ordered), "p50_ms": p50, "p99_ms": p99, "max_ms": ordered[-1]}
    # Microseconds are the ledger's resolution; more digits would be noise.
    facts = {name: round(value, 3) for name, value in facts.items()}
    return {**facts, "latency_ms": [round(float(sample), 3) for sample in samples_ms]}


def _is_latency(value: object) -> bool:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return number and math.isfinite(float(value)) and float(value) >= 0  # pyright: ignore[reportArgumentType]
