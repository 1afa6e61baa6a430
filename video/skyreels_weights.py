"""The weights of diffusers' SkyReelsV2Transformer3DModel under our names and in our layout: query, key and value below
each other, rotary pairs as halves, patches as rows."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Our part of a name, and theirs: of the network, and of a layer.
RENAMED = (
    *(("embed", "patch_embedding"), ("modulation", "condition_embedder.time_proj"), ("head", "proj_out")),
    *((f"level.{2 * i}", f"condition_embedder.time_embedder.linear_{1 + i}") for i in range(2)),
    *((f"text.{2 * i}", f"condition_embedder.text_embedder.linear_{1 + i}") for i in range(2)),
)
RENAMED_OF_LAYER = (
    *(("self_out", "attn1.to_out.0"), ("cross_query", "attn2.to_q"), ("cross_out", "attn2.to_out.0")),
    *(("cross_query_norm", "attn2.norm_q"), ("cross_key_norm", "attn2.norm_k"), ("cross_norm", "norm2")),
    *(("up", "ffn.net.0.proj"), ("down", "ffn.net.2")),
)


def our_state(theirs: dict[str, Tensor], config: Any, fps: int) -> dict[str, Tensor]:
    """The weights of diffusers under our names and in our layout; what is left over keeps its name."""
    if "fps_embedding.weight" in theirs:
        theirs["condition_embedder.time_proj.bias"] = theirs["condition_embedder.time_proj.bias"] + _rate(theirs, fps)
    ours = _renamed(theirs, "", "", RENAMED)
    ours["embed.weight"] = ours["embed.weight"].flatten(1)
    ours["head_modulation"] = theirs.pop("scale_shift_table").flatten()
    for i in range(config.num_layers):
        old, new = f"blocks.{i}.", f"layers.{i}."
        ours |= _renamed(theirs, old, new, RENAMED_OF_LAYER)
        ours[f"{new}modulation"] = theirs.pop(f"{old}scale_shift_table").flatten()
        for name, norm in (("self_query_norm", "norm_q"), ("self_key_norm", "norm_k")):
            ours[f"{new}{name}.weight"] = _halved(theirs.pop(f"{old}attn1.{norm}.weight"), config.num_attention_heads)
        for kind in ("weight", "bias"):
            q, k, v = (theirs.pop(f"{old}attn1.to_{part}.{kind}") for part in "qkv")
            ours[f"{new}self_in.{kind}"] = torch.cat(
                [_halved(q, config.num_attention_heads), _halved(k, config.num_attention_heads), v]
            )
            text = [theirs.pop(f"{old}attn2.to_{part}.{kind}") for part in "kv"]
            ours[f"{new}cross_text.{kind}"] = torch.cat(text)
    return ours | theirs


def _renamed(theirs: dict[str, Tensor], old: str, new: str, names: tuple) -> dict[str, Tensor]:
    """The weights and biases that are there, taken out of `theirs`."""
    pairs = ((f"{new}{a}.{kind}", f"{old}{b}.{kind}") for a, b in names for kind in ("weight", "bias"))
    return {ours: theirs.pop(name) for ours, name in pairs if name in theirs}


def _halved(rows: Tensor, heads: int) -> Tensor:
    """[E, ...]: numbers 2 i and 2 i + 1 of a head go to i and i + d / 2."""
    return rearrange(rows, "(h i two) ... -> (h two i) ...", h=heads, two=2)


def _rate(theirs: dict[str, Tensor], fps: int) -> Tensor:
    """[6 E]: what a frame rate adds to the modulation; taken out of `theirs`. The network knows 16 and others."""
    h = theirs.pop("fps_embedding.weight")[0 if fps == 16 else 1]
    for part, act in (("0.proj", F.silu), ("2", lambda h: h)):
        weight, bias = (theirs.pop(f"fps_projection.net.{part}.{kind}") for kind in ("weight", "bias"))
        h = act(F.linear(h, weight, bias))
    return h
