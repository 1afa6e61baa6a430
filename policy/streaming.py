"""The streaming policy: the transformer of Diffusion Policy with a level for every row, so that the rows of a chunk can
lie on a diagonal from clean to noise (Streaming Diffusion Policy, Hoeg et al. 2024; RNR-DP, Chen et al. 2025).

The published network has one time token. Here that token holds the mean level, and each row is told its own by an
embedding that begins as zero: with a level that all rows share, published weights give the published network's bits,
but for what row 0 is shown.

    x = embed(noisy actions) + positions + row_level(sinusoid(level of the row))

A queue carries what it once made of older observations. What a demonstration corrects later cannot be known then, and a
row that guessed it is wrong. So a part of the training denoises queues that the network itself has ticked over the last
few observations, towards the demonstration.

Row 0 belongs to the newest observation, so all rows see all observations; the published row 0, which belongs to the
oldest, sees that one alone.

Legend: B lanes, T rows, E width; H rows of a block, S = T / H steps of a row.
"""

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion import Asked, Inputs, build, load_plan, queue_grid, schedule
from ..diffusion.staircase import Staircase
from ..errors import InputError
from .config import TransformerConfig
from .network import sinusoid
from .transformer import Context, TransformerForDiffusion

# Of training: samples whose rows share a level; of queues, those with blocks of one row, and those that are filling.
TOGETHER, SINGLE, RAMP = 0.15, 0.6, 0.3
OLD, LOOKBACK = 0.6, 6  # samples that are queues of the network's own, and for how many ticks, at most


class StreamingTransformer(TransformerForDiffusion):
    """Predicts as `TransformerForDiffusion` does, given one level a row."""

    family: ClassVar[str] = "streaming-transformer"
    from_newest: ClassVar[bool] = True
    lookback: ClassVar[int] = LOOKBACK
    levels = "position"

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.row_level = nn.Linear(config.width, config.width)
        nn.init.zeros_(self.row_level.weight)
        nn.init.zeros_(self.row_level.bias)

    def enter(self, x: Tensor, asked: Asked) -> Tensor:
        """x: [B, T', Da] with T' <= T -> [B, T', E]."""
        return super().enter(x, asked) + self.row_level(sinusoid(asked.label, self._frequency))

    def tell(self, asked: Asked) -> Context:
        """asked.label: [B, T'], a level a row; asked.context: from `prepare`."""
        memory = self._memory(asked.label.mean(1), asked.context)
        mask = None if self.mask is None else self.mask[: asked.label.shape[1], : asked.label.shape[1]]
        return Context(memory, mask, None)

    def anatomy(self) -> None:
        """None: accelerators that rewrite the published network know one level a sample."""

    def loss(self, obs: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Error at the levels of a queue in some tick, or, for some samples, at a level that all share: of noised
        demonstrations, squared; and of queues that the network has ticked, from up to m ticks ago, where it is twice
        Huber's, because their rows can lie many sigmas from the demonstration."""
        T, To, m = self.config.horizon, self.config.n_obs_steps, self.lookback
        old = int(len(actions) * OLD)
        now = obs[:, m : m + To], actions[:, m : m + T]
        plain = self.loss_at(self.drawn_levels(len(actions) - old, generator), now[0][old:], now[1][old:], generator)
        if not old:
            return plain
        ticks = int(torch.randint(1, m + 1, (), generator=generator))
        x = self.ticked_queue(obs[:old, m - ticks :], actions[:old, m - ticks : m - ticks + T], ticks, generator)
        t = queue_labels(self.config, 1)[-1].expand(old, -1)
        a, s = self.signal_and_noise(t, actions)
        out = self.predict(x, t.float().to(x.device), self.prepare(now[0][:old])).x
        target = self.target(now[1][:old], (x - a * now[1][:old]) / s, a, s)
        return (1 - OLD) * plain + OLD * 2 * F.huber_loss(out, target)

    @torch.no_grad()
    def ticked_queue(self, obs: Tensor, actions: Tensor, ticks: int, generator: torch.Generator) -> Tensor:
        """A full queue of noised demonstrations, [B, T, Da], after some ticks of `diagonal-1`, each shown the
        observations of its time, obs [B, ticks + To or more, Do] -> [B, T, Da], rows from the newest observation on."""
        plan = dataclasses.replace(load_plan("diagonal-1"), grid=queue_grid(self.config.horizon))
        program = build(self, plan, actions.shape[2:], None)
        seed = torch.randint(2**31, (len(actions),), generator=generator)
        state = program.start(seed, torch.zeros_like(seed), device=actions.device)
        t = queue_labels(self.config, 1)[-1].expand(len(actions), -1)
        a, s = self.signal_and_noise(t, actions)
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        state = state._replace(x=a * actions + s * noise, tick=torch.full_like(seed, program.staircase.steps - 1))
        for tick in range(ticks):
            context = self.prepare(obs[:, tick : tick + self.config.n_obs_steps])
            state, _ = program.tick(state, Inputs(context))
        order = program.index(state.tick).argsort(1).to(state.x.device)
        return state.x.gather(1, order[..., None].expand_as(state.x))

    def drawn_levels(self, lanes: int, generator: torch.Generator) -> Tensor:
        """[B, T] trained levels. A sample is a queue of blocks of H rows, H any divisor of T below T and mostly 1
        (`SINGLE`), that lag one step behind each other: full, as it is in most ticks, or still being filled (`RAMP`);
        or all rows share a level (`TOGETHER`)."""
        T, top = self.config.horizon, self.schedule.train_levels
        if T < 2:
            raise InputError(f"a queue of horizon {T} has no blocks, wanted 2 rows or more")
        tables = [queue_labels(self.config, H) for H in range(1, T) if T % H == 0]
        together = torch.randint(top, (lanes, 1), generator=generator).expand(-1, T)
        which = torch.randint(1, max(len(tables), 2), (lanes,), generator=generator) % len(tables)
        which[torch.rand(lanes, generator=generator) < SINGLE] = 0
        tick = torch.rand(2, lanes, generator=generator)
        rows = [
            tables[table][-1 if full > RAMP else int(place * len(tables[table]))]
            for table, (full, place) in zip(which.tolist(), tick.T.tolist(), strict=True)
        ]
        alone = torch.rand(lanes, 1, generator=generator) < TOGETHER
        return torch.where(alone, together, torch.stack(rows))


def queue_labels(config: TransformerConfig, block: int) -> Tensor:
    """[S, T] int64: what the rows are told at the ticks 0..S - 1 of a queue with blocks of H rows; the last is the full
    queue, whose first block is one step from clean."""
    steps = config.horizon // block
    grid = queue_grid(steps).build(schedule(config.schedule, config.train_levels))
    position = torch.arange(config.horizon)[None]
    done = Staircase(steps, 1, block).done(torch.arange(steps)[:, None], position)
    return torch.from_numpy(grid.label).long()[steps - done]
