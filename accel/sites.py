"""Finding the residual branches of a torch model that is not ours: where each is called, and by what name."""

import dataclasses
from collections.abc import Mapping

from torch import nn

from ..errors import InputError

TORCH_LAYERS = (nn.TransformerDecoderLayer, nn.TransformerEncoderLayer)
TORCH_BRANCHES = {"_sa_block": "self_attention", "_mha_block": "cross_attention", "_ff_block": "feed_forward"}
ATTENTIONS = ("attn", "attn1", "attn2", "self_attn", "cross_attn")
FEED_FORWARDS = ("ff", "ff_context", "ffn", "mlp")


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a branch is called: a method of a module that an instance attribute can shadow."""

    name: str
    module: nn.Module
    method: str = "forward"


def branches(model: nn.Module, blocks: Mapping[str, nn.Module] | None = None) -> list[Site]:
    """The residual branches in the order of the module tree; those of `blocks`, by name, where they are given.

    A name is the path below the list that all layers are in: "0.self_attention", "3.ff". Raises InputError where none
    are found and where `blocks` names modules that are not the model's.
    """
    if blocks is not None:
        return _given(model, blocks)
    found: list[tuple[str, str, nn.Module, str]] = []
    for path, module in model.named_modules():
        found += [(path, name, owner, method) for name, owner, method in _of_layer(module)]
    if not found:
        raise InputError(
            f"{type(model).__name__} has no transformer layers of torch, and no modules with an attention "
            f"({', '.join(ATTENTIONS)}) and a feed-forward child ({', '.join(FEED_FORWARDS)}); "
            "name its branches: blocks={'0.attention': model.layers[0].attention, ...}"
        )
    cut = len(_shared_path([path for path, *_ in found]))
    names = [".".join([*path.split(".")[cut:], name]).lstrip(".") for path, name, *_ in found]
    return [Site(name, owner, method) for name, (_, _, owner, method) in zip(names, found, strict=True)]


def _given(model: nn.Module, blocks: Mapping[str, nn.Module]) -> list[Site]:
    own = {id(module) for module in model.modules()}
    strangers = [name for name, module in blocks.items() if id(module) not in own]
    if strangers or not blocks:
        raise InputError(f"blocks: {', '.join(strangers) or 'none given'}; wanted modules of {type(model).__name__}")
    if len({id(module) for module in blocks.values()}) < len(blocks):
        raise InputError("blocks: a module is named twice; a branch has one name")
    return [Site(name, module) for name, module in blocks.items()]


def _of_layer(module: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """The branches of a module that is a layer: name, module, method."""
    if isinstance(module, TORCH_LAYERS):
        return [(name, module, method) for method, name in TORCH_BRANCHES.items() if hasattr(module, method)]
    children = dict(module.named_children())
    if not (any(name in children for name in ATTENTIONS) and any(name in children for name in FEED_FORWARDS)):
        return []
    return [(name, child, "forward") for name, child in children.items() if name in (*ATTENTIONS, *FEED_FORWARDS)]


def _shared_path(paths: list[str]) -> list[str]:
    """What all paths begin with, up to the first number, which is a place in a list of layers."""
    shared: list[str] = []
    for parts in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(parts)) > 1 or parts[0].isdigit():
            break
        shared.append(parts[0])
    return shared
