"""What users run today: Diffusion Policy's transformer from torch.nn's own layers, sampled by the diffusers scheduler.

Written from the published description and independent of the package; its state_dict has the same keys, so that both
networks hold the same weights.

Legend: B lanes, T action rows, To observation steps, S = 1 + To memory tokens, E width, Da, Do.
"""

import math

import torch
from torch import Tensor, nn


class StockTransformer(nn.Module):
    """x: [B, T, Da], t: scalar or [B], obs: [B, To, Do] -> the predicted noise [B, T, Da]."""

    def __init__(
        self,
        action_dim: int,
        observation_dim: int,
        horizon: int,
        n_obs_steps: int,
        width: int = 256,
        layers: int = 8,
        heads: int = 4,
        causal: bool = True,
        n_cond_layers: int = 0,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.01,
    ) -> None:
        super().__init__()
        T, S, E = horizon, 1 + n_obs_steps, width
        shape = {"dim_feedforward": 4 * E, "dropout": p_drop_attn, "activation": "gelu"}
        self.input_emb = nn.Linear(action_dim, E)
        self.pos_emb = nn.Parameter(torch.zeros(1, T, E))
        self.drop = nn.Dropout(p_drop_emb)
        self.cond_obs_emb = nn.Linear(observation_dim, E)
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, S, E))
        if n_cond_layers > 0:
            layer = nn.TransformerEncoderLayer(E, heads, **shape, batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, n_cond_layers, enable_nested_tensor=False)
        else:
            self.encoder = nn.Sequential(nn.Linear(E, 4 * E), nn.Mish(), nn.Linear(4 * E, E))
        layer = nn.TransformerDecoderLayer(E, heads, **shape, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers)
        self.ln_f = nn.LayerNorm(E)
        self.head = nn.Linear(E, action_dim)
        self._dummy_variable = nn.Parameter(torch.empty(0))
        if causal:
            self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(T))
            hidden = torch.tensor([[row < slot - 1 for slot in range(S)] for row in range(T)])
            self.register_buffer("memory_mask", torch.zeros(T, S).masked_fill(hidden, -math.inf))
        else:
            self.mask, self.memory_mask = None, None

    def forward(self, x: Tensor, t: Tensor | float, obs: Tensor) -> Tensor:
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        half = self.pos_emb.shape[-1] // 2
        frequency = torch.exp(torch.arange(half, device=x.device) * -(math.log(10000) / (half - 1)))
        angle = t[:, None] * frequency[None]
        time = torch.cat([angle.sin(), angle.cos()], -1)[:, None]
        tokens = torch.cat([time, self.cond_obs_emb(obs)], 1)
        memory = self.encoder(self.drop(tokens + self.cond_pos_emb))
        x = self.drop(self.input_emb(x) + self.pos_emb[:, : x.shape[1]])
        x = self.decoder(x, memory, tgt_mask=self.mask, memory_mask=self.memory_mask)
        return self.head(self.ln_f(x))


def ddpm_scheduler(train_levels: int = 100):
    """diffusers' DDPMScheduler as Diffusion Policy sets it up."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(
        num_train_timesteps=train_levels,
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        clip_sample=True,
        prediction_type="epsilon",
    )


def ddim_scheduler(train_levels: int = 100):
    """diffusers' DDIMScheduler as Diffusion Policy sets it up for its robots; eta is 0."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=train_levels,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="epsilon",
    )


def sample(network: StockTransformer, scheduler, obs: Tensor, noise: Tensor, steps: int = 100) -> Tensor:
    """The published sampling loop: obs [B, To, Do], noise [B, T, Da] -> [B, T, Da]."""
    scheduler.set_timesteps(steps)
    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t, obs), t, x).prev_sample
    return x
