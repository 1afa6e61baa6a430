"""Foreign weights into our networks: names, shapes read off the weights, and a strict load.

LeRobot's U-Net is Diffusion Policy's under other names:

    down_modules.0.0.conv1.block.0      down_modules.0.0.blocks.0.block.0
    down_modules.0.2, up_modules.0.2    down_modules.0.2.conv, up_modules.0.2.conv
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import listed, shown
from ...errors import InputError

FINAL_GROUPS = 8  # of the last block's group norm in both libraries, whatever n_groups says
BLOCK = re.compile(r"\.conv([12])\.block\.")
BETWEEN = re.compile(r"^((?:down|up)_modules\.\d+\.2)\.(weight|bias)$")


def published_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LeRobot's names of a U-Net's weights -> Diffusion Policy's, which are ours."""

    def renamed(name: str) -> str:
        name = BLOCK.sub(lambda found: f".blocks.{int(found[1]) - 1}.block.", name)
        return BETWEEN.sub(r"\1.conv.\2", name)

    return {renamed(name): value for name, value in weights.items()}


def unet_shape(weights: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    """`action_dim`, `down_dims`, `kernel_size`, `step_width`, `film_scale` of a U-Net's weights, and `known`, how many
    numbers all its observations have together. Raises InputError where a weight is missing that tells them."""
    levels = len({name.split(".")[1] for name in weights if name.startswith("down_modules.")})
    try:
        blocks = [weights[f"down_modules.{i}.0.blocks.0.block.0.weight"].shape for i in range(levels)]
        told = weights["down_modules.0.0.cond_encoder.1.weight"].shape
        step_width = weights["diffusion_step_encoder.1.weight"].shape[1]
        dims, action_dim, kernel_size = tuple(shape[0] for shape in blocks), blocks[0][1], blocks[0][2]
        known, scaled = told[1] - step_width, told[0] == 2 * dims[0]
    except (KeyError, IndexError) as error:
        raise InputError(f"{what} holds no whole U-Net: its weights lack {error}") from None
    return {
        "action_dim": action_dim,
        "down_dims": dims,
        "kernel_size": kernel_size,
        "step_width": step_width,
        "film_scale": scaled,
        "known": known,
    }


def final_groups(groups: Any, what: str) -> int:
    """n_groups, refused where the network would have two numbers of groups."""
    if groups != FINAL_GROUPS:
        raise InputError(
            f"{what}: n_groups is {shown(groups)}, served is {FINAL_GROUPS}, which its last block has in any case"
        )
    return FINAL_GROUPS


def built(make: Callable[[Any], Any], config: Any, weights: Mapping[str, Tensor], what: str) -> Any:
    """The network of a config, with these weights, all of them and nothing else, in fp32; what is no parameter (a mask)
    must be as the network has it. Raises InputError naming what does not fit, before any memory is taken for it."""
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in make(config).state_dict().items()}
    for name in sorted({*wanted, *weights}):
        got = tuple(weights[name].shape) if name in weights else None
        if got != wanted.get(name):
            told = f"{listed([name])} is {shown(got) if got else 'missing'}, wanted {wanted.get(name, 'none')}"
            raise InputError(f"{what} does not fit the network its configuration tells: {told}")
    network = make(config)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    network.load_state_dict({name: value.float() for name, value in weights.items()}, strict=True)
    changed = [name for name, value in network.named_buffers() if not torch.equal(value, buffers[name])]
    if changed:
        raise InputError(f"{what} has its own {changed[0]}: it sees other positions than the published network")
    if not all(torch.isfinite(value).all() for value in network.parameters()):
        raise InputError(f"{what} holds weights that are not finite")
    return network.eval().requires_grad_(False)
