"""The cameras of a LeRobot policy as ours: ResNet-18 under the names of a torch Sequential.

    backbone.0, backbone.1      conv1, bn1        (2 and 3 are ReLU and the pool)
    backbone.4 ... backbone.7   layer1 ... layer4
    pool.nets, out              the same
    pool.pos_grid               a buffer: the places of the map, ours to work out

Served: square images, group norm, a random or a middle crop, one encoder of all cameras or one of each.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...checkpoints import listed, shown
from ...errors import InputError

ENCODER = "diffusion.rgb_encoder."
STAGES = {"0": "conv1", "1": "bn1", **{str(i + 3): f"layer{i}" for i in range(1, 5)}}
MOST_CAMERAS, MOST_PIXELS = 16, 20_000_000  # no weight tells the size of an image, statistics are as large as it
SETTINGS = {"vision_backbone": "resnet18", "use_group_norm": True, "resize_shape": None}


def camera_settings(
    config: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], weights: Mapping[str, Tensor], what: str
) -> dict[str, Any]:
    """The fields of our CameraConfig. shapes: {camera: [3, S, S]}, in the network's order. Raises InputError for what
    is not served, by name."""
    for name, served in SETTINGS.items():
        if config.get(name, served) != served:
            raise InputError(f"{what}: {name} is {shown(config[name])}, served is {served!r}")
    sizes = {tuple(shape) for shape in shapes.values()}
    size = next(iter(sizes))
    if len(sizes) > 1 or len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        told = listed(f"{name} {shown(shape)}" for name, shape in shapes.items())
        raise InputError(f"{what}: images are {told}, served are squares [3, S, S] of one size")
    if len(shapes) > MOST_CAMERAS or len(shapes) * math.prod(size) > MOST_PIXELS:
        raise InputError(
            f"{what}: {len(shapes)} images of {size[1]} x {size[1]} pixels, served are up to {MOST_CAMERAS} images and "
            f"{MOST_PIXELS} numbers together"
        )
    crop = config.get("crop_shape")
    if crop is not None and (not isinstance(crop, list) or len(crop) != 2 or crop[0] != crop[1]):
        raise InputError(f"{what}: crop_shape is {shown(crop)}, served is a square")
    looked = size[1] if crop is None else crop[0]
    if type(looked) is not int or looked > size[1]:
        raise InputError(f"{what}: crop_shape is {shown(crop)}, images are {size[1]} wide")
    try:
        one = ENCODER + ("0." if config.get("use_separate_rgb_encoder_per_camera") else "")
        width, keypoints = (weights[f"{one}{name}.weight"].shape[0] for name in ("backbone.0", "pool.nets"))
    except (KeyError, IndexError) as error:
        raise InputError(f"{what}: the policy has cameras and its weights lack {error}, or its shape") from None
    return {
        "cameras": tuple(shapes),
        "image_size": size[1],
        "camera_crop": 0 if crop is None else looked,
        "camera_shift": (size[1] - looked) // 2 if config.get("crop_is_random", True) else 0,
        "camera_width": width,
        "keypoints": keypoints,
    }


def camera_weights(weights: Mapping[str, Tensor], separate: bool, cameras: int, what: str) -> dict[str, Tensor]:
    """Our names `cameras.encoders.I.*` from LeRobot's; an encoder of all cameras is given to each."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        which, _, part = name.removeprefix(ENCODER).partition(".") if separate else ("", "", name.removeprefix(ENCODER))
        if part == "pool.pos_grid":
            _check_places(value, what)
            continue
        for i in [which] if separate else range(cameras):
            found[f"cameras.encoders.{i}.{_renamed(part)}"] = value
    return found


def _renamed(name: str) -> str:
    kind, _, rest = name.partition(".")
    if kind != "backbone":
        return name
    stage, _, rest = rest.partition(".")
    return f"backbone.{STAGES.get(stage, stage)}.{rest}"


def _check_places(grid: Tensor, what: str) -> None:
    """In the precision that they are kept in."""
    if not _is_published(grid):
        raise InputError(f"{what} has keypoints on another grid than the published one")


def _is_published(grid: Tensor) -> bool:
    if grid.ndim != 2 or not grid.is_floating_point():
        return False
    along = torch.linspace(-1, 1, round(len(grid) ** 0.5))
    places = torch.cartesian_prod(along, along).flip(1)
    near = max(1e-6, torch.finfo(grid.dtype).eps)
    return grid.shape == places.shape and torch.allclose(grid.float(), places, rtol=0, atol=near)
