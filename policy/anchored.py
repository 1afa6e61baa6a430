"""Truncated anchored diffusion: DiffusionDrive's decoder (Liao et al. 2025) for chunks of actions.

Denoising starts from K anchors, the centres of the demonstrations' chunks, noised a little, and not from pure noise.
Every anchor is one lane and one token: the chunk, embedded as a whole, asks the observations what it should become.

    points = x                                                  the noisy chunk, [B, K, T Da]
    for stage in stages:                                        the cascade
        h = h + embed(points)                                   [B, K, E]
        for layer in stage: h = layer(h, observations, time)    cross-attention and feed-forward, scaled by the level
        points = points + offset(h)                             the chunk, refined; the next stage starts from here
        score = confidence(h)                                   that the demonstration is of this anchor

x0 is the last stage's chunk. Anchors do not see each other, so a lane's result does not depend on how many there are.

Differs from the published: confidences are trained with cross-entropy over the anchors, in the place of a focal loss on
each, because they are also used as probabilities; lanes hold chunks that are no anchors for a part of the training; and
half of the samples have taken a step of the network's own before, as every call but the first has.

Legend: B observations, K anchors, L = B K lanes, T rows, To observation steps, E width, Da, Do, M windows.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..diffusion import Prediction, Rows, Schedule, schedule
from ..errors import InputError
from .config import AnchoredConfig
from .network import ActionNetwork, frequencies, sinusoid

REGRESSION, CONFIDENCE = 8.0, 1.0  # weights of the two losses
STEPPED = 0.5  # of the samples
CLUSTERED = 20_000  # windows that are clustered, at most


class AnchoredDecoder(ActionNetwork):
    """Predicts, for every lane, the chunk that its anchor should become, and a confidence."""

    family: ClassVar[str] = "anchored-decoder"
    levels = "sample"
    prediction = "sample"
    windows = False
    scores = True
    config: AnchoredConfig
    schedule: Schedule
    anchors: Tensor
    _frequency: Tensor

    def __init__(self, config: AnchoredConfig) -> None:
        super().__init__()
        c = self.config = config
        self.clip, self.schedule = c.clip, schedule(c.schedule, c.train_levels)
        E, flat = c.width, c.horizon * c.action_dim
        self.register_buffer("anchors", torch.zeros(c.anchors, c.horizon, c.action_dim))
        self.register_buffer("_frequency", frequencies(E), persistent=False)
        self.observation = nn.Linear(c.observation_dim, E)
        self.observation_position = nn.Parameter(torch.randn(1, c.n_obs_steps, E) * 0.02)
        self.encoder = nn.Sequential(nn.Linear(E, 4 * E), nn.GELU(), nn.Linear(4 * E, E))
        self.time = nn.Sequential(nn.Linear(E, E), nn.GELU())
        self.stages = nn.ModuleList(Stage(c, flat) for _ in range(c.stages))

    def prepare(self, obs: Tensor) -> Tensor:
        """obs: [B, To, Do], normalised -> [B, To, E]."""
        tokens = self.observation(obs) + self.observation_position
        return tokens + self.encoder(tokens)

    def predict(self, x: Tensor, label: Tensor, context: Tensor, rows: Rows | None = None) -> Prediction:
        """x: [L, T, Da], the lanes of an observation side by side; label: [L, T], equal along each lane; context:
        [B, To, E] -> x0 [L, T, Da], confidence [L]. As in training, x is seen within [-1, 1]."""
        chunks, scores = self.cascade(x.clamp(-1, 1), label[:, 0], context)
        return Prediction(chunks[-1], scores[-1])

    def cascade(self, x: Tensor, label: Tensor, context: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """x: [L, T, Da]; label: [L] -> of every stage, chunks [L, T, Da] and confidences [L]."""
        B, (L, T, D) = context.shape[0], x.shape
        points = x.reshape(B, L // B, T * D)
        time = self.time(sinusoid(label, self._frequency)).reshape(B, L // B, -1)
        h = torch.zeros_like(time)
        chunks, scores = [], []
        for stage in self.stages:
            h, points, score = stage(h, points, context, time)  # type: ignore[operator]
            chunks.append(points.reshape(L, T, D))
            scores.append(score.reshape(L))
            points = points.detach()
        return chunks, scores

    # -- training -------------------------------------------------------------------------------------------------

    def begin_training(self, chunks: Tensor, seed: int) -> None:
        """Anchors: k-means centres of the chunks [M, T, Da], in normalised units, where grippers count little."""
        from sklearn.cluster import KMeans

        flat = rearrange(chunks, "m t d -> m (t d)").cpu().numpy()
        if len(flat) < self.config.anchors:
            raise InputError(f"{len(flat)} windows do not make {self.config.anchors} anchors; use more data or fewer")
        kept = flat[torch.linspace(0, len(flat) - 1, min(CLUSTERED, len(flat))).long().numpy()]
        clusters = KMeans(self.config.anchors, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
        centres = clusters.fit(kept).cluster_centers_
        self.anchors.copy_(torch.from_numpy(centres).reshape(self.anchors.shape))

    def loss(self, obs: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """L1 of the chunk that the right anchor became, and cross-entropy of the confidences, summed over stages. The
        right anchor is the nearest to the demonstration, before noise, so it is fixed a sample.

        A share of the samples (`members`) starts from chunks in the place of anchors: the right one's lane from the
        demonstration itself, the others from demonstrations of the same batch that have them as their right anchors. A
        share (`STEPPED`) has been denoised from its level to a lower one, by the network as it is.
        """
        B, K = len(actions), self.config.anchors
        right = self.nearest(actions)
        start = repeat(self.anchors, "k t d -> b k t d", b=B).clone()
        held = torch.rand(B, generator=generator).to(actions.device) < self.config.members
        start = torch.where(held[:, None, None, None], self._members(actions, right, generator), start)
        t = torch.randint(self.config.noised_levels, (B, 1), generator=generator)
        a, s = self._signal_and_noise(t, actions.device)
        x = a * start + s * torch.randn(start.shape, generator=generator).to(actions.device)
        n = int(B * STEPPED)
        stepped, t[:n] = self._stepped(x[:n], t[:n], obs[:n], generator)
        x = torch.cat([stepped, x[n:]])
        chunks, scores = self.cascade(*self._lanes(x, t), self.prepare(obs))
        total = torch.zeros((), device=actions.device)
        for chunk, score in zip(chunks, scores, strict=True):
            mine = rearrange(chunk, "(b k) t d -> b k t d", k=K)[torch.arange(B), right]
            total = total + REGRESSION * F.l1_loss(mine, actions)
            total = total + CONFIDENCE * F.cross_entropy(score.reshape(B, K), right)
        return total

    @torch.no_grad()
    def _stepped(self, x: Tensor, t: Tensor, obs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """x [B, K, T, Da] at trained levels t [B, 1] after a DDIM step to a lower one, drawn evenly, and that level."""
        target = (torch.rand(t.shape, generator=generator) * t).long()  # below t, and 0 where t is
        out = self.cascade(*self._lanes(x, t), self.prepare(obs))[0][-1].reshape(x.shape)
        (a, s), (a_next, s_next) = (self._signal_and_noise(level, x.device) for level in (t, target))
        return a_next * out.clamp(-1, 1) + s_next * (x - a * out) / s, target

    def _lanes(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, K, T, Da] at levels t [B, 1] as the cascade takes them: within [-1, 1], a lane an anchor."""
        label = t.float().expand(x.shape[:2]).to(x.device)
        return rearrange(x.clamp(-1, 1), "b k t d -> (b k) t d"), label.reshape(-1)

    def _signal_and_noise(self, t: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """alpha and sigma [B, 1, 1, 1] of trained levels t [B, 1]."""
        kept = torch.from_numpy(self.schedule.alpha_bar).float()[t].to(device)[..., None, None]
        return kept.sqrt(), (1 - kept).sqrt()

    def nearest(self, chunks: Tensor) -> Tensor:
        """[..., T, Da] -> [...] int64: the anchor that is nearest, by the mean distance of rows."""
        return (chunks[..., None, :, :] - self.anchors).norm(dim=-1).mean(-1).argmin(-1)

    def _members(self, actions: Tensor, right: Tensor, generator: torch.Generator) -> Tensor:
        """[B, K, T, Da]: in each lane a chunk of the batch whose right anchor it is, the anchor where there is none; in
        the right lane of a sample its own chunk."""
        B, K = len(actions), self.config.anchors
        chance = torch.rand(B, B, generator=generator).to(actions.device)  # which sample gives to which
        fits = F.one_hot(right, K).bool()  # [B, K]
        giver = torch.where(fits[None], chance[:, :, None], -1.0).argmax(1)  # [B, K]
        members = torch.where(fits.any(0)[None, :, None, None], actions[giver], self.anchors)
        members[torch.arange(B), right] = actions
        return members


class Stage(nn.Module):
    """One stage of the cascade."""

    def __init__(self, config: AnchoredConfig, flat: int) -> None:
        super().__init__()
        E = config.width
        self.embed = nn.Sequential(nn.Linear(flat, 4 * E), nn.GELU(), nn.Linear(4 * E, E))
        self.layers = nn.ModuleList(AnchoredLayer(E, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(E)
        self.offset = nn.Sequential(nn.Linear(E, 4 * E), nn.GELU(), nn.Linear(4 * E, flat))
        self.confidence = nn.Sequential(nn.Linear(E, E), nn.GELU(), nn.Linear(E, 1))

    def forward(self, h: Tensor, points: Tensor, context: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h, time: [B, K, E]; points: [B, K, T Da]; context: [B, To, E] -> h, points, confidence [B, K]."""
        h = h + self.embed(points)
        for layer in self.layers:
            h = layer(h, context, time)
        h = self.norm(h)
        return h, points + self.offset(h), self.confidence(h)[..., 0]


class AnchoredLayer(nn.Module):
    """Cross-attention to the observations and a feed-forward, each on a norm that the level scales and shifts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.level = nn.Linear(width, 4 * width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask, self.answer, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, context: Tensor, time: Tensor) -> Tensor:
        """h, time: [B, K, E]; context: [B, To, E] -> [B, K, E]."""
        scale1, shift1, scale2, shift2 = self.level(time).chunk(4, -1)
        h = h + self.attend(self.norm1(h) * (1 + scale1) + shift1, context)
        return h + self.feed(self.norm2(h) * (1 + scale2) + shift2)

    def attend(self, h: Tensor, context: Tensor) -> Tensor:
        """As `forward`, without the level."""
        key, value = self.answer(context).chunk(2, -1)
        q, k, v = (rearrange(y, "b n (h e) -> b h n e", h=self.heads) for y in (self.ask(h), key, value))
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n e -> b n (h e)"))
