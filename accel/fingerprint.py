"""Tells one network from another by its weights."""

import hashlib

from torch import nn

from ..diffusion import Denoiser


def fingerprint(network: nn.Module | Denoiser) -> str:
    """16 hexadecimal digits of the weights' names, shapes and values, whatever the device; of a denoiser without
    weights, of its class and its blocks."""
    digest = hashlib.sha256()
    if isinstance(network, nn.Module):
        for name, tensor in sorted(network.state_dict().items()):
            tensor = tensor.detach().float().cpu().contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
    else:
        digest.update(f"{type(network).__qualname__}{[block.name for block in network.blocks()]}".encode())
    return digest.hexdigest()[:16]
