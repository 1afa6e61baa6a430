"""A diffusion policy as the control loop sees it: observations in, chunks of actions out.

    policy = DiffusionPolicy(load_checkpoint(folder), load_plan("ddim-10"), width=16)
    policy.reset(lanes=[0, 1], seeds=[7, 9])
    actions = policy.predict_action_chunk(obs, lanes=[0, 1])        # [2, Ta, Da]

Every network call runs at `width` lanes: fewer are padded. Rounding depends on the batch width and noise on the
lane's seed and on which of its chunks this is, so a lane's actions do not depend on who else is served.

Legend: L lanes asked for, To, Ta, Da, Do; Th = Tp - To + 1 rows from the newest observation on.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import repeat
from torch import Tensor

from ..diffusion import Chunk, Guidance, Plan, Program, build, guided, run_scored_chunk, soft_mask
from ..errors import InputError
from .checkpoint import Checkpoint


class DiffusionPolicy:
    """Implements the Policy contract with one checkpoint and one plan."""

    def __init__(
        self, checkpoint: Checkpoint, plan: Plan, width: int = 1, build: Callable[..., Program] = build
    ) -> None:
        """width: lanes of every network call; build: what compiles the plan (`ontick.accel.build` for one with
        accelerators). Raises InputError where the checkpoint cannot run the plan."""
        if width < 1:
            raise InputError(f"a policy's width is {width}, wanted at least 1 lane")
        self._refuse(checkpoint, plan)
        config = checkpoint.network.config
        self.checkpoint, self.plan, self.width = checkpoint, plan, width
        self.n_obs_steps, self.n_action_steps = config.n_obs_steps, plan.execute or config.n_action_steps
        self.observation_dim, self.action_dim = config.observation_dim, config.action_dim
        self.first_row = checkpoint.network.first_row
        if self.n_action_steps > config.horizon - self.first_row:
            most = config.horizon - self.first_row
            raise InputError(f"plan {plan.name!r} executes {self.n_action_steps} actions of {most} that are predicted")
        self.program: Program = build(checkpoint.network, plan, (config.action_dim,), self._positions())
        self.calls_per_chunk = self.program.calls
        self._seed: dict[int, int] = {}
        self._births: dict[int, int] = {}
        self._queue: dict[int, list[np.ndarray]] = {}
        self._window: dict[int, np.ndarray] = {}
        self._fixed: dict[int, tuple[np.ndarray, int]] = {}  # what the next answer is to agree with
        self._guided: dict[int, Program] = {}  # by the id of the program that it guides

    @property
    def backend(self) -> str:
        """What chunks run on; a program may find at its first answer that it must fall back."""
        return self.program.backend

    @property
    def refreshes(self) -> float | None:
        """How often a block of the network is computed in a chunk, the mean over blocks; None where the program decides
        that as it runs."""
        if self.program.dynamic:
            return None
        return float(self.calls_per_chunk) if self.program.refreshes is None else self.program.refreshes

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> None:
        """Start episodes: lane i draws its noise from seeds[i], from its first chunk on."""
        for lane, seed in zip(lanes, seeds, strict=True):
            self._seed[lane], self._births[lane] = int(seed), 0
            self._queue.pop(lane, None)
            self._window.pop(lane, None)
            self._fixed.pop(lane, None)

    def adopt(self, lanes: Sequence[int], last: Sequence[np.ndarray], answers: Sequence[int]) -> None:
        """See `runtime.AdoptingPolicy`; the next answer is a birth that no other policy of the lane has had."""
        self._births.update(zip(lanes, answers, strict=True))

    def inpaint(self, lanes: Sequence[int], rows: Sequence[np.ndarray], fixed: Sequence[int]) -> None:
        """See `runtime.InpaintingPolicy`; rows: [m, Da] a lane. The next answer is pulled towards them at every step,
        by the network's true Jacobian where a plan runs it as it is, and by the identity on rewritten networks; a guess
        it is born from is mixed with them."""
        self._fixed.update({lane: (kept, n) for lane, kept, n in zip(lanes, rows, fixed, strict=True) if len(kept)})

    def predict_with_tail(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs: [L, To, Do] float32, newest last -> [L, Th, Da] float32: the chunk of Ta rows, then its tail, where the
        program computes one. Row 0 belongs to the newest observation. Each call is a new birth of its lanes."""
        obs = np.asarray(obs, dtype=np.float32)
        self._check(obs, lanes, (len(lanes), self.n_obs_steps, self.observation_dim), "(lanes, To, Do)")
        parts = [
            self._padded(obs[i : i + self.width], lanes[i : i + self.width]) for i in range(0, len(obs), self.width)
        ]
        return np.concatenate(parts)

    def predict_action_chunk(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """obs: [L, To, Do] -> [L, Ta, Da]."""
        return self.predict_with_tail(obs, lanes)[:, : self.n_action_steps]

    def select_action(self, obs: np.ndarray) -> np.ndarray:
        """obs: [B, Do], the newest of lanes 0..B-1 -> [B, Da]; asks for a chunk when a lane's last one is used up."""
        obs = np.asarray(obs, dtype=np.float32)
        lanes = range(len(obs) if obs.ndim else 0)
        self._check(obs, lanes, (len(lanes), self.observation_dim), "(lanes, Do)")  # before the window takes it in
        self._remember(obs)
        empty = [lane for lane in lanes if not self._queue.get(lane)]
        if empty:
            chunks = self.predict_action_chunk(np.stack([self._window[lane] for lane in empty]), empty)
            self._queue.update({lane: list(chunk) for lane, chunk in zip(empty, chunks, strict=True)})
        return np.stack([self._queue[lane].pop(0) for lane in lanes])

    # -- what a kind of plan changes ------------------------------------------------------------------------------

    def _refuse(self, checkpoint: Checkpoint, plan: Plan) -> None:
        """Raises InputError where this class cannot serve the plan."""
        if plan.birth != "noise":
            raise InputError(f"plan {plan.name!r} starts from a guess ({plan.birth}); this policy has none")
        if checkpoint.network.scores:
            raise InputError(f"plan {plan.name!r} starts from noise; this network from anchors, as in anchored-2")

    def _positions(self) -> int | None:
        """Of the program; None: it has no end."""
        return self.checkpoint.network.config.horizon

    def _sampled(self, obs: Tensor, lanes: Sequence[int]) -> Tensor:
        """obs: [width, To, Do], normalised, of at most `width` lanes and then padding -> the lanes' chunks [L, Tp, Da],
        normalised."""
        return self._run(self.program, obs, lanes)[: len(lanes)]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _run(self, program: Program, obs: Tensor, lanes: Sequence[int], guess: Tensor | None = None) -> Tensor:
        """A chunk of `width` lanes, [width, Tp, Da]; guess: [width, Tp, Da], where the plan's birth takes one."""
        return self._scored(program, obs, lanes, *self._keys(lanes), guess).x

    def _scored(
        self, program: Program, obs: Tensor, lanes: Sequence[int], seed: Tensor, birth: Tensor, guess: Tensor | None
    ) -> Chunk:
        """A chunk for each of `seed` and `birth`; guided for lanes with rows to agree with, which changes no bit of
        the others."""
        guided_lanes = [lane in self._fixed for lane in lanes] + [False] * (self.width - len(lanes))
        if not any(guided_lanes):
            return run_scored_chunk(program, program.prepare(obs), seed, birth, guess, obs.device)
        chunk = self._guided_chunk(program, obs, lanes, seed, birth, guess)
        if all(guided_lanes[: len(lanes)]):
            return chunk
        plain = run_scored_chunk(program, program.prepare(obs), seed, birth, guess, obs.device)
        is_guided = torch.tensor(guided_lanes, device=obs.device).repeat_interleave(len(seed) // self.width)
        x = torch.where(is_guided[:, None, None], chunk.x, plain.x)
        if chunk.score is None or plain.score is None:
            return Chunk(x)
        return Chunk(x, torch.where(is_guided, chunk.score, plain.score))

    def _guided_chunk(
        self, program: Program, obs: Tensor, lanes: Sequence[int], seed: Tensor, birth: Tensor, guess: Tensor | None
    ) -> Chunk:
        if id(program) not in self._guided:
            plain = self.plan.backend == "eager" and not self.plan.accelerators
            self._guided[id(program)] = guided(program, true_jacobian=plain)
        with torch.inference_mode(False), torch.no_grad():  # a gradient cannot be taken of what inference mode made
            obs, guess = obs.clone(), None if guess is None else guess.clone()
            known, weight = (part.repeat_interleave(len(seed) // self.width, 0) for part in self._agreed(lanes, obs))
            if guess is not None:  # few low levels do not turn a guess that disagrees
                guess = torch.lerp(guess, known, weight[..., None])
            told = Guidance(program.prepare(obs), known, weight)
            return run_scored_chunk(self._guided[id(program)], told, seed, birth, guess, obs.device)

    def _agreed(self, lanes: Sequence[int], obs: Tensor) -> tuple[Tensor, Tensor]:
        """Rows to agree with, normalised, and their weights, of lanes and padding: [width, Tp, Da] and [width, Tp]."""
        config, first = self.checkpoint.network.config, self.first_row
        known = torch.zeros(self.width, config.horizon, self.action_dim)
        weight = torch.zeros(self.width, config.horizon)
        for i, lane in enumerate(lanes):
            if lane in self._fixed:
                rows, fixed = self._fixed[lane]
                left = min(len(rows), config.horizon - first)
                known[i, first : first + left] = torch.from_numpy(np.array(rows[:left], np.float32))
                weight[i, first:] = torch.from_numpy(soft_mask(config.horizon - first, left, fixed))
        return self.checkpoint.normaliser.normalise("action", known.to(obs.device)), weight.to(obs.device)

    def _keys(self, lanes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Seed and birth [width] of lanes and padding."""
        spare = [0] * (self.width - len(lanes))
        seeds, births = [self._seed[lane] for lane in lanes], [self._births[lane] for lane in lanes]
        return torch.tensor(seeds + spare), torch.tensor(births + spare)

    @torch.inference_mode()
    def _padded(self, obs: np.ndarray, lanes: Sequence[int]) -> np.ndarray:
        """At most `width` lanes: [L, To, Do] -> [L, Th, Da]. Returning to numpy waits for the device."""
        normaliser = self.checkpoint.normaliser
        filled = np.concatenate([obs, np.repeat(obs[-1:], self.width - len(lanes), 0)])
        x = normaliser.normalise("obs", torch.from_numpy(filled).to(normaliser.obs_scale.device))
        rows = normaliser.unnormalise("action", self._sampled(x, lanes)[:, self.first_row :])
        for lane in lanes:
            self._births[lane] += 1
            self._fixed.pop(lane, None)
        return rows.cpu().numpy()

    def _check(self, obs: np.ndarray, lanes: Sequence[int], wanted: tuple[int, ...], legend: str) -> None:
        if obs.shape != wanted or len(lanes) == 0:
            raise InputError(f"observations have shape {obs.shape}, wanted {wanted} {legend}, at least one lane")
        if len(set(lanes)) < len(lanes):
            raise InputError(f"lanes {list(lanes)} name one lane twice; a lane has one chunk a call")
        if not np.isfinite(obs).all():
            bad = [lanes[i] for i in np.unique(np.argwhere(~np.isfinite(obs))[:, 0])]
            raise InputError(f"observations of lanes {bad} hold NaN or infinity; mend the sensor or the environment")
        unknown = [lane for lane in lanes if lane not in self._seed]
        if unknown:
            raise InputError(f"lanes {unknown} were never reset; call reset(lanes, seeds) first")

    def _remember(self, obs: np.ndarray) -> None:
        """Shift each lane's window of To observations; a fresh window repeats its first one."""
        for lane, newest in enumerate(obs):
            window = self._window.get(lane)
            if window is None:
                window = repeat(newest, "d -> t d", t=self.n_obs_steps)
            else:
                window = np.concatenate([window[1:], newest[None]])
            self._window[lane] = window
