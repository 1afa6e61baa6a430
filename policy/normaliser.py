"""Linear normalisation of observations and actions: y = x * scale + offset, a dimension each.

Fitted to the limits of the data, so that every dimension covers [-1, 1]; a dimension that hardly moves maps to 0.
Pixels are not fitted: they have limits of their own. Nor are actions with units of their own, such as rotations: what
hardly turns would be blown up.
Gripper dimensions are made smaller still (`discrete_scale`): a switch between open and closed is then a short way in
normalised units, which warm starts from a low noise level need (RTI-DP's "scale" variant, kept in the checkpoint).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError

KEYS = ("obs", "action")
DISCRETE_SCALE = 0.1  # of a gripper's range, whose limits are then -0.1 and 0.1


class Normaliser(nn.Module):
    """Holds `{obs,action}.{scale,offset}`, each [dim] float32, as buffers: they take no gradient."""

    obs_scale: Tensor
    obs_offset: Tensor
    action_scale: Tensor
    action_offset: Tensor

    def __init__(self, parameters: Mapping[str, Mapping[str, Tensor]]) -> None:
        super().__init__()
        missing = [key for key in KEYS if key not in parameters]
        if missing:
            raise InputError(f"normaliser has no statistics for {', '.join(missing)}; it has {sorted(parameters)}")
        for key in KEYS:
            if parameters[key]["scale"].dim() != 1 or parameters[key]["scale"].shape != parameters[key]["offset"].shape:
                shapes = [tuple(parameters[key][name].shape) for name in ("scale", "offset")]
                raise InputError(f"normaliser {key} has scale and offset of shapes {shapes}, wanted one row of each")
            for name in ("scale", "offset"):
                value = parameters[key][name].detach().float()
                if not torch.isfinite(value).all() or (name == "scale" and (value == 0).any()):
                    raise InputError(f"normaliser {key}.{name} holds zeros or values that are not finite")
                self.register_buffer(f"{key}_{name}", value)

    @staticmethod
    def fit(
        observations: np.ndarray,
        actions: np.ndarray,
        *,
        unfitted_dims: tuple[int, ...] = (),
        discrete_dims: tuple[int, ...] = (),
        discrete_scale: float = DISCRETE_SCALE,
        still: float = 1e-4,
        state_dim: int | None = None,
    ) -> "Normaliser":
        """observations: [frames, Do]; actions: [frames, Da]. A dimension whose range is below `still` is constant.
        state_dim: numbers of an observation before its pixels; None: it has none. Pixels become [-1, 1] from [0, 1],
        whatever the data: one that never changed may change. unfitted_dims: of the action, left as they are."""
        fitted = {"obs": _with_pixels(observations, still, state_dim), "action": _limits(actions, still)}
        for dim in unfitted_dims:
            fitted["action"]["scale"][dim], fitted["action"]["offset"][dim] = 1.0, 0.0
        for dim in discrete_dims:
            fitted["action"]["scale"][dim] *= discrete_scale
            fitted["action"]["offset"][dim] *= discrete_scale
        return Normaliser(fitted)

    def normalise(self, key: str, x: Tensor) -> Tensor:
        """[..., dim] in the user's units -> normalised."""
        scale, offset = self._of(key)
        return x * scale + offset

    def unnormalise(self, key: str, y: Tensor) -> Tensor:
        """[..., dim] normalised -> the user's units."""
        scale, offset = self._of(key)
        return (y - offset) / scale

    def tensors(self) -> dict[str, Tensor]:
        """`{obs,action}.{scale,offset}`, as a checkpoint stores them."""
        return {name.replace("_", "."): value for name, value in self.state_dict().items()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> "Normaliser":
        """The inverse of `tensors`. Raises InputError where statistics are missing."""
        parameters: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            key, _, part = name.rpartition(".")
            parameters.setdefault(key, {})[part] = value
        for key, parts in parameters.items():
            if set(parts) != {"scale", "offset"}:
                raise InputError(f"normaliser statistics of {key!r} are {sorted(parts)}, wanted scale and offset")
        return Normaliser(parameters)

    def _of(self, key: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"{key}_scale"), getattr(self, f"{key}_offset")


def _with_pixels(x: np.ndarray, still: float, state_dim: int | None) -> dict[str, Tensor]:
    """`_limits`, and what takes [0, 1] to [-1, 1] from dimension `state_dim` on."""
    fitted = _limits(x[:, :state_dim], still)
    pixels = torch.ones(x.shape[1] - len(fitted["scale"]))
    return {"scale": torch.cat([fitted["scale"], 2 * pixels]), "offset": torch.cat([fitted["offset"], -pixels])}


def _limits(x: np.ndarray, still: float) -> dict[str, Tensor]:
    low, high = x.min(0).astype(np.float64), x.max(0).astype(np.float64)
    moves = high - low >= still
    scale = np.where(moves, 2 / np.where(moves, high - low, 1), 1.0)
    offset = np.where(moves, -1 - scale * low, -(high + low) / 2)
    return {"scale": torch.from_numpy(scale).float(), "offset": torch.from_numpy(offset).float()}
