"""Video: networks that denoise frames, the streams that they draw, how they are trained, shown and judged.

checkpoint = load_video_checkpoint("assets/space-time-transformer/arm-and-ball")
network = checkpoint.network
plan = stream_plan("rolling", network.schedule, network.frames)
stream = Stream(network, plan, (3, 64, 64), seeds=[0], action_dim=2)
frame = checkpoint.values.to_frames(stream.advance(torch.tensor([1.0, 0.0])))    # uint8 [1, 1, 64, 64, 3]
"""

from .checkpoint import VideoCheckpoint, load_video_checkpoint, save_video_checkpoint
from .clips import Clips, read_clips, write_clips
from .config import VideoConfig
from .contract import FrameDenoiser, Memory, Sight
from .network import FrameTransformer
from .plans import STREAM_PLANS, StreamPlan, stream_plan
from .stream import Effort, Reaction, Stream
from .training import VideoTrainingConfig, train_video
from .values import Values

__all__ = [
    "STREAM_PLANS",
    "Clips",
    "Effort",
    "FrameDenoiser",
    "FrameTransformer",
    "Memory",
    "Reaction",
    "Sight",
    "Stream",
    "StreamPlan",
    "Values",
    "VideoCheckpoint",
    "VideoConfig",
    "VideoTrainingConfig",
    "load_video_checkpoint",
    "read_clips",
    "save_video_checkpoint",
    "stream_plan",
    "train_video",
    "write_clips",
]
