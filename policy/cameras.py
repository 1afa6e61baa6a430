"""What a network sees: cameras in an observation, told by a few keypoints each.

    observation [Do] = [state | camera 0 | camera 1 | ...]      a camera is 3 x S x S, channel first, row by row
    features [F]     = [state | keypoints of camera 0 | ...]    2 K numbers a camera, in the observation's place

The encoder is that of Diffusion Policy (Chi et al. 2023) and of LeRobot: ResNet-18 (He et al. 2016) with group norm in
the place of batch norm, whose running statistics do not go with averaged weights; a spatial softmax (Levine et al.
2016), which tells where in the image each learnt feature lies; a linear map and ReLU. Every camera has its own.

Legend: B lanes, To observation steps, n images, C channels, S side of an image, h of the encoder's map, K keypoints.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import CameraConfig

GROUP = 16  # channels of one group of a norm


def eyes(config: CameraConfig) -> nn.Module:
    """observation [B, To, Do], normalised -> features [B, To, F]. Without cameras: the observation itself, and nothing
    that a checkpoint would hold."""
    return Cameras(config) if config.cameras else nn.Identity()


class Cameras(nn.Module):
    """An encoder for each camera. In training, all images of a sample are moved by the same random few pixels; then the
    middle is looked at, so that moves of at most half of what is left out are random crops."""

    def __init__(self, config: CameraConfig) -> None:
        super().__init__()
        self.state_dim, self.size, self.shift = config.state_dim, config.image_size, config.camera_shift
        self.feature_dim, self.keypoints = config.feature_dim, config.keypoints
        first = round((config.image_size - config.looked_at) / 2)
        self.looked_at = slice(first, first + config.looked_at)
        self.encoders = nn.ModuleList(ImageEncoder(config) for _ in config.cameras)

    def forward(self, obs: Tensor) -> Tensor:
        """obs: [B, To, Do] -> [B, To, F]; [B, To, F], told before, stay as they are. The To images of a camera are one
        batch."""
        if obs.shape[-1] == self.feature_dim:
            return obs
        pairs = zip(self.encoders, self.images(obs).unbind(1), strict=True)
        features = [encoder(images).view(*obs.shape[:2], -1) for encoder, images in pairs]
        return torch.cat([obs[..., : self.state_dim], *features], -1)

    def images(self, obs: Tensor) -> Tensor:
        """obs: [B, To, Do] -> [B To, cameras, 3, s, s], what is looked at; in training moved."""
        B, To, S = *obs.shape[:2], self.size
        images = obs[..., self.state_dim :].reshape(B, To * len(self.encoders) * 3, S, S)
        if self.training and self.shift:
            images = moved(images, torch.randint(-self.shift, self.shift + 1, (B, 2)))
        return images.reshape(B * To, len(self.encoders), 3, S, S)[..., self.looked_at, self.looked_at]


def moved(images: Tensor, by: Tensor) -> Tensor:
    """images [B, C, S, S] moved `by` [B, 2] pixels, down and to the right; what comes in repeats the edge."""
    B, _, S, _ = images.shape
    place = torch.arange(S)
    row, column = ((place - each[:, None]).clamp(0, S - 1).to(images.device) for each in by.unbind(1))  # [B, S]
    lane = torch.arange(B, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[lane, row[:, :, None], column[:, None]].permute(0, 3, 1, 2)


class ImageEncoder(nn.Module):
    """[n, 3, S, S] -> [n, 2 K]"""

    def __init__(self, config: CameraConfig) -> None:
        super().__init__()
        self.backbone = ResNet18(config.camera_width, config.camera_fine)
        side = -(-config.looked_at // config.pixels_a_place)
        self.pool = SpatialSoftmax(self.backbone.channels, config.keypoints, side)
        self.out = nn.Linear(2 * config.keypoints, 2 * config.keypoints)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.out(self.pool(self.backbone(images)).flatten(1)))


class SpatialSoftmax(nn.Module):
    """Where in a map each of K learnt features lies: the mean place under a softmax over all places.

    (x, y)_k = sum_p softmax_p(a_k . map_p + b_k) (x, y)_p,    x to the right and y down, the outermost places at -1, 1
    """

    places: Tensor

    def __init__(self, channels: int, keypoints: int, side: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)
        along = torch.linspace(-1, 1, side)
        self.register_buffer("places", torch.cartesian_prod(along, along).flip(1), persistent=False)  # [h h, (x, y)]

    def forward(self, maps: Tensor) -> Tensor:
        """[n, C, h, h] -> [n, K, 2], x and y."""
        return self.nets(maps).flatten(2).softmax(-1) @ self.places


class ResNet18(nn.Module):
    """Of any base width w, without the pool and the classifier; parameters have the names of torchvision's `resnet18`.

    [n, 3, S, S] -> [n, 8 w, S / 32, S / 32], sides rounded up; `fine`, without the max pool, S / 16
    """

    def __init__(self, width: int, fine: bool = False) -> None:
        super().__init__()
        w = width
        self.channels = 8 * w
        self.conv1, self.bn1 = nn.Conv2d(3, w, 7, 2, 3, bias=False), _norm(w)
        self.maxpool = nn.Identity() if fine else nn.MaxPool2d(3, 2, 1)
        self.layer1, self.layer2 = _layer(w, w, 1), _layer(w, 2 * w, 2)
        self.layer3, self.layer4 = _layer(2 * w, 4 * w, 2), _layer(4 * w, 8 * w, 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a residual path; `downsample` where that changes shape."""

    downsample: nn.Module | None

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), _norm(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), _norm(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs))

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + kept)


def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)
