"""Fuzzed actions through the safety gate, at 50 Hz: what it lets through, what it costs, and whether it grows.

    python benchmarks/gate_fuzz.py --n 1000000 --json benchmarks/results/gate-fuzz.json

Robots of 2 dimensions, of 6 and a gripper, and of 2 in a round workspace take a third of the actions each, in chunks:
random ones, random walks, lines, from one limit to the other, and numbers that are none. Some have wrong shapes, some
go to a motion unmapped. Every command is looked at once more here, from the positions alone: finite, within the limits,
its first, second and third differences within speed, acceleration and jerk. Prints and writes unsafe commands, crashes,
growth of resident memory, and how long an action takes through the gate, the first 4,000 of each robot apart.
"""

import argparse
import json
import os
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ontick.files import write_whole
from ontick.runtime import WallClock, describe_machine
from ontick.runtime.robots import ActionMap, Limits, RobotDescription
from ontick.runtime.safety import SafetyGate

PERIOD_S = 0.02
SHARE = 1e-9  # by which a difference may pass a limit, beside round-off
STEPS = 16  # rows of a chunk
SPOILT = (np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, 1e38, -0.0)
KINDS = ("random", "walk", "line", "alternating", "spoilt", "huge", "tiny", "shape")
WARM_UP = 4000  # actions of each robot before memory is looked at
EPISODE = 2000  # commands; then the robot begins anew, now and then outside its limits


def robot(dims: int, gripper: bool) -> RobotDescription:
    """A robot of some joints, in radians, and a gripper that switches."""
    moving = dims - gripper
    infinite = [np.inf] * gripper
    limits = Limits(
        low=[-2.0 + 0.1 * dim for dim in range(moving)] + [0.0] * gripper,
        high=[2.5 - 0.2 * dim for dim in range(moving)] + [1.0] * gripper,
        speed=[2.0] * moving + infinite,
        acceleration=[8.0] * moving + infinite,
        jerk=[80.0 + 400.0 * dim for dim in range(moving)] + infinite,
    )
    return RobotDescription(
        name="fuzzed", observation_dim=dims, limits=limits, period_s=PERIOD_S, streams=(("joints", 0, dims),)
    )


def in_disc(position: np.ndarray) -> bool:
    return bool(np.hypot(*position) < 1.5)


class Fuzz:
    """One robot behind its gate, and what came through."""

    def __init__(self, name: str, dims: int, n: int, gripper: bool = False, inside: Any = None) -> None:
        self.name, self.n, self._dims, self._inside = name, n, dims, inside
        self._rng = np.random.default_rng(dims + gripper)
        self._robot = robot(dims, gripper)
        most = 3.0 if inside is None else 0.5
        kind = "absolute" if inside is None else "delta"
        actions = ActionMap(kind=kind, scale=(1.0,) * dims, low=(-most,) * dims, high=(most,) * dims)
        self._gate = SafetyGate(self._robot, actions, (STEPS // 2, dims), 0.1, 1.0, inside)
        self._positions = np.full((EPISODE + 3, dims), 0.0)
        self.took_s = np.full(n, np.nan)  # filled, so that the memory it takes is taken before it is measured
        self.commands = self.unsafe = self.crashes = self.moved = 0
        self.most = np.zeros(3)
        self.kinds: Counter[str] = Counter()

    def run(self, commands: int) -> None:
        """So many more commands, in episodes."""
        end = min(self.n, self.commands + commands)
        while self.commands < end:
            self._episode(min(EPISODE, end - self.commands))

    def told(self) -> dict[str, Any]:
        took_us = self.took_s[WARM_UP:] * 1e6
        p50, p99, most = np.percentile(took_us, (50, 99, 100)) if len(took_us) else (0.0, 0.0, 0.0)
        return {
            "robot": self.name,
            "actions": self.commands,
            "unsafe": self.unsafe,
            "crashes": self.crashes,
            "moved": self.moved,
            "most_of_limits": dict(zip(("speed", "acceleration", "jerk"), self.most.tolist(), strict=True)),
            "action_us": {"p50": p50, "p99": p99, "max": most},
            "chunks": dict(self.kinds),
            "counts": dict(self._gate.counts),
        }

    def _episode(self, commands: int) -> None:
        limits = self._robot.limits
        stretch = 0.65 if self._inside is None and self._rng.random() < 0.1 else 0.2  # 0.5: to the limits
        begins = (limits.low + limits.high) / 2 + stretch * (limits.high - limits.low) * self._rng.uniform(
            -1, 1, self._dims
        )
        self._gate.begin(begins)
        self._positions[:3] = begins
        done = 0
        while done < commands:
            for row in self._chunk()[: commands - done]:
                self._positions[3 + done] = self._command(row, self.commands + done)
                done += 1
        self.commands += commands
        self._judge(self._positions[: commands + 3])

    def _chunk(self) -> list[Any]:
        """Rows to play; a chunk that was refused is played all the same: whoever asks, the gate stands."""
        kind = str(self._rng.choice(KINDS))
        self.kinds[kind] += 1
        rows = self._rows(kind)
        try:
            refused = self._gate.refuses_chunk(rows, 0.0, 0.1) is not None
            self.kinds[f"{kind}_refused"] += refused
        except Exception:  # any at all is a crash, and is counted
            self._crashed()
        if not isinstance(rows, np.ndarray) or not rows.ndim:
            return [rows]
        return list(rows)

    def _rows(self, kind: str) -> Any:
        rng, shape = self._rng, (STEPS, self._dims)
        if kind == "walk":
            return np.cumsum(rng.normal(0, 0.1, shape), 0).astype(np.float32)
        if kind == "line":
            return np.linspace(*rng.uniform(-3, 3, (2, self._dims)), STEPS)
        if kind == "alternating":
            high = np.arange(STEPS)[:, None] // rng.integers(1, 6, self._dims) % 2
            return (6.0 * high - 3.0).astype(np.float32)
        if kind == "spoilt":
            rows = rng.uniform(-3, 3, shape)
            rows[rng.random(shape) < 0.1] = rng.choice(SPOILT)
            return rows
        if kind == "huge":
            return rng.uniform(-1, 1, shape) * 10.0 ** int(rng.integers(1, 308))
        if kind == "tiny":
            return rng.uniform(-1, 1, shape) * 10.0 ** -int(rng.integers(1, 320))
        if kind == "shape":
            rows = rng.normal(size=tuple(rng.integers(0, 20, rng.integers(0, 4))))
            return rows if rng.random() < 0.5 else rows.astype(rng.choice(("O", "S4", "f2", ">f8", "c16", "?")))
        return rng.uniform(-3, 3, shape).astype(np.float32)

    def _command(self, row: Any, index: int) -> np.ndarray:
        gate, way = self._gate, self._rng.random()
        velocity = self._rng.normal(0, 2, self._dims) if way < 0.3 else None
        started_s = WallClock().now()
        try:
            if way > 0.95:
                command, _ = gate.step(row if way < 0.99 else None)  # as it is, or nothing: a hold
            else:
                command, _ = gate.step(gate.target(row), velocity)
        except Exception:  # any at all is a crash, and is counted
            self._crashed()
            command = gate.motion.position
        self.took_s[index] = WallClock().now() - started_s
        return command

    def _crashed(self) -> None:
        self.crashes += 1
        traceback.print_exc()

    def _judge(self, positions: np.ndarray) -> None:
        """Count commands that break a promise; the first three rows are where it began."""
        limits = self._robot.limits
        began, commands = positions[2], positions[3:]
        bad = ~np.isfinite(commands).all(1)
        # Whoever began outside the limits comes back in, and never goes further out.
        floor = np.minimum(limits.low, np.maximum.accumulate(np.minimum(positions[2:-1], limits.low)))
        ceiling = np.maximum(limits.high, np.minimum.accumulate(np.maximum(positions[2:-1], limits.high)))
        bad |= ((commands < floor) | (commands > ceiling)).any(1)
        if self._inside is not None:
            bad |= ~np.array([self._inside(command) for command in commands])
        coarse = 4 * np.finfo(float).eps * np.abs(positions).max()
        for order, most in enumerate((limits.speed, limits.acceleration, limits.jerk), start=1):
            differences = np.abs(np.diff(positions, order, axis=0)[3 - order :]) / PERIOD_S**order
            bad |= ~(differences <= most * (1 + SHARE) + 2**order * coarse / PERIOD_S**order).all(1)
            self.most[order - 1] = max(self.most[order - 1], (differences / most).max())
        self.unsafe += int(bad.sum())
        self.moved += int((commands != np.vstack([began, commands[:-1]])).any(1).sum())


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1_000_000, help="actions")
    parser.add_argument("--json", required=True, metavar="FILE")
    options = parser.parse_args()
    share = -(-options.n // 3)
    fuzzes = [
        Fuzz("2 dimensions", 2, share),
        Fuzz("6 dimensions and a gripper", 7, share, gripper=True),
        Fuzz("2 dimensions in a disc", 2, options.n - 2 * share, inside=in_disc),
    ]
    machine = describe_machine()
    for fuzz in fuzzes:
        fuzz.run(WARM_UP)
    before_mib = resident_mib()
    for fuzz in fuzzes:
        fuzz.run(fuzz.n)
        told = fuzz.told()
        took = told["action_us"]
        print(
            f"{fuzz.name}: {told['actions']} actions, {told['unsafe']} unsafe commands, {told['crashes']} crashes; "
            f"an action takes p50 {took['p50']:.0f}, p99 {took['p99']:.0f}, max {took['max']:.0f} us"
        )
    after_mib = resident_mib()
    print(f"resident memory {before_mib:.1f} MiB after {WARM_UP} actions each, {after_mib:.1f} MiB after all")
    runs = [fuzz.told() for fuzz in fuzzes]
    totals = {name: sum(run[name] for run in runs) for name in ("actions", "unsafe", "crashes")}
    resident = {"before": before_mib, "after": after_mib}
    document = {"machine": machine, "period_s": PERIOD_S, **totals, "resident_mib": resident, "runs": runs}
    write_whole(Path(options.json), json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
