"""Real-time iteration (Duan et al. 2025): every answer is denoised from the answer before, shifted by the actions that
were used, over a few low levels. Each answer is a new birth with noise of its own; the first, and whatever follows a
reset, is the cold plan's.

    guess <- concat(previous[n:], the last row n times)         n rows were used
    x     <- guess, or alpha guess + sigma z                    births `guess` and `noised`
    x     <- the plan's steps, each to an explicit level

Legend: L lanes, Tp rows, Da.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..diffusion import Plan, Program, build, load_plan, shifted
from ..errors import InputError
from .checkpoint import Checkpoint
from .chunk_policy import DiffusionPolicy


class WarmStart(DiffusionPolicy):
    """Keeps each lane's last answer."""

    continues = False

    def __init__(
        self, checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build
    ) -> None:
        super().__init__(checkpoint, plan, width, build)
        if plan.guess.clip:
            checkpoint.at_limits(torch.zeros(self.action_dim))  # refused here, and not at the first answer
        self._previous: dict[int, Tensor] = {}  # [Tp, Da], normalised
        self._used: dict[int, int] = {}
        self._calls: dict[int, int] = {}

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        super().reset(lanes, seeds)
        for lane in lanes:
            self._previous.pop(lane, None)
            self._used.pop(lane, None)

    def follow(self, lanes: Sequence[int], rows: Sequence[int]) -> None:
        """rows of the last answer that lie behind, counted from its observation."""
        self._used.update(zip(lanes, rows, strict=True))

    def adopt(self, lanes: Sequence[int], last: Sequence[np.ndarray], answers: Sequence[int]) -> None:
        """The rows before the newest observation, which an answer does not hold, are filled with its first."""
        super().adopt(lanes, last, answers)
        for lane, rows in zip(lanes, last, strict=True):
            whole = torch.from_numpy(np.concatenate([np.repeat(rows[:1], self.first_row, 0), rows]))
            units = self.checkpoint.normaliser
            self._remember_answers([lane], units.normalise("action", whole.to(units.action_scale.device))[None])

    @property
    def usual_calls(self) -> int | None:
        return None if self.program.dynamic else self.calls_per_chunk

    def calls_of(self, lane: int) -> int:
        return self._calls.get(lane, self.calls_per_chunk)

    def _shifted(self, lane: int) -> Tensor:
        """[Tp, Da]: the previous answer from the rows on that were not used, its last row repeated."""
        return shifted(self._previous[lane], self._used.get(lane, self.n_action_steps))

    def _remember_answers(self, lanes: Sequence[int], chunks: Tensor) -> None:
        """chunks: [L, Tp, Da]; with `clip`, discrete dimensions are kept at their nearer limit."""
        kept = self.checkpoint.at_limits(chunks) if self.plan.guess.clip else chunks.clone()
        self._previous.update(zip(lanes, kept, strict=True))
        for lane in lanes:
            self._used.pop(lane, None)  # was told of the answer before


class RealTimeIterationPolicy(WarmStart):
    """Serves plans whose guess is the previous answer."""

    def __init__(
        self, checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build
    ) -> None:
        super().__init__(checkpoint, plan, width, build)
        cold = load_plan(plan.guess.cold)
        if cold.birth != "noise" or cold.stagger or cold.accelerators:
            raise InputError(f"plan {plan.name!r}: cold plan {cold.name!r}, wanted a plain one that starts from noise")
        computed = {name: getattr(plan, name) for name in ("accelerators", "precision", "backend")}
        every_row = checkpoint.network.config.horizon - self.first_row  # is used: as the next guess
        cold = dataclasses.replace(cold, **computed, execute=every_row)
        self.cold: Program = build(checkpoint.network, cold, self.program.shape, self._positions())

    def _refuse(self, checkpoint: Checkpoint, plan: Plan) -> None:
        if plan.guess.source != "previous":
            raise InputError(
                f"plan {plan.name!r} starts from {plan.guess.source}, this policy from its previous answer"
            )

    def _sampled(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        warm = [i for i, lane in enumerate(lanes) if lane in self._previous]
        cold = [i for i in range(len(lanes)) if i not in warm]
        answers = self._part(obs, lanes, cold, is_warm=False) | self._part(obs, lanes, warm, is_warm=True)
        chunks = torch.stack([answers[lane] for lane in lanes])
        self._remember_answers(lanes, chunks)
        return chunks

    def _part(self, obs: Tensor, lanes: Sequence[int], places: list[int], is_warm: bool) -> dict[int, Tensor]:
        """The chunks [Tp, Da] of the lanes at `places`, cold or warm ones."""
        if not places:
            return {}
        asked = [lanes[i] for i in places]
        padded = places + [places[-1]] * (self.width - len(places))
        guess = torch.stack([self._shifted(lanes[i]) for i in padded]) if is_warm else None
        program = self.program if is_warm else self.cold
        chunks = self._run(program, obs[padded], asked, guess)
        self._calls.update(dict.fromkeys(asked, program.calls))
        return dict(zip(asked, chunks, strict=False))
