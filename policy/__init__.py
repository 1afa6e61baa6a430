"""Action denoisers and what is needed to train and serve them.

The training and timing core: importing it needs torch, numpy, einops and safetensors alone.
"""

from .anchored import AnchoredDecoder
from .checkpoint import NETWORKS, Checkpoint, load_checkpoint, read_config, save_checkpoint
from .chunk_policy import DiffusionPolicy
from .config import AnchoredConfig, CameraConfig, ChunkConfig, TransformerConfig, UNetConfig
from .network import ActionNetwork, ChunkNetwork
from .normaliser import Normaliser
from .serving import serve
from .streaming import StreamingTransformer
from .training import TrainingConfig, train
from .transformer import TransformerForDiffusion
from .unet import ConditionalUnet1D

__all__ = [
    "NETWORKS",
    "ActionNetwork",
    "AnchoredConfig",
    "AnchoredDecoder",
    "CameraConfig",
    "Checkpoint",
    "ChunkConfig",
    "ChunkNetwork",
    "ConditionalUnet1D",
    "DiffusionPolicy",
    "Normaliser",
    "StreamingTransformer",
    "TrainingConfig",
    "TransformerConfig",
    "TransformerForDiffusion",
    "UNetConfig",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
    "serve",
    "train",
]
