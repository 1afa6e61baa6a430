"""ontick: diffusion on the tick. One engine denoises robot actions and video, judged by a clock."""

__version__ = "0.1.0"
