"""Which denoisers can be run branch by branch."""

from ..diffusion import Denoiser
from ..errors import InputError


def check_stream(denoiser: Denoiser) -> None:
    """Raises InputError where a denoiser does not show itself as a residual stream (`Denoiser.is_stream`)."""
    if denoiser.is_stream:
        return
    lacks = "writes no Denoiser.enter, tell and leave" if denoiser.blocks() else "lists no blocks (Denoiser.blocks)"
    name = type(denoiser).__name__
    raise InputError(f"{name} {lacks}, so it is no residual stream, whose branches could be told apart")
